"""A watch for jobs that nobody waits for."""

from __future__ import annotations

from contracts.queue.events import Preview


class Nobody:
    """Lets every step pass."""

    def step(self, step: int, steps: int) -> None:
        """Nothing to do."""

    def preview(self, job_id: str, preview: Preview) -> None:
        """Nothing to do."""
