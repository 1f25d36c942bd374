"""A worker's hands, for commands that wait for a job's end."""

from tests.app.conftest import hands

__all__ = ["hands"]
