"""Why files could not be had from a hub. Each text is one whole sentence for clients: no paths, no library's text.

HubError
├── HubUnavailable   may succeed later
├── HubRefused       final, until somebody changes the catalogue, the token or the repository
└── Cancelled        nobody wants the files any more
"""

from __future__ import annotations

from contracts.errors import DarkroomError


class HubError(DarkroomError):
    """Files of a hub are not here."""


class HubUnavailable(HubError):
    """The hub, the connection or the disk fails for now; `retry_seconds` where the hub said when to come back."""

    def __init__(self, message: str, retry_seconds: float | None = None) -> None:
        self.retry_seconds = retry_seconds
        super().__init__(message)


class HubRefused(HubError):
    """Missing, gated, not authorised, of the wrong class, or without the files that the row needs."""


class Cancelled(HubError):
    """The caller's `is_wanted` returned False; what has arrived stays, and the next download resumes it."""
