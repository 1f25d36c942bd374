"""Fixtures: the API, whose document clients are generated from."""

from __future__ import annotations

from tests.app.conftest import api_settings, client

__all__ = ["api_settings", "client"]
