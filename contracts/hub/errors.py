"""Why files could not be fetched from a hub. Messages are sentences for clients, without paths or library texts.

HubError
├── HubUnavailable   may succeed later
├── HubRefused       final, until somebody changes the catalogue, the token or the repository
└── Cancelled        nobody needs the files any longer
"""

from __future__ import annotations

from contracts.errors import DarkroomError


class HubError(DarkroomError):
    """Failure to get files from a hub."""


class HubUnavailable(HubError):
    """Temporary failure of the hub, the connection or the disk; `retry_seconds` if the hub said when to retry."""

    def __init__(self, message: str, retry_seconds: float | None = None) -> None:
        self.retry_seconds = retry_seconds
        super().__init__(message)


class HubRefused(HubError):
    """Repository that is missing, gated, refused, of the wrong class, or without files that the row needs."""


class Cancelled(HubError):
    """Download that the caller's `is_wanted` ended; what has arrived stays, and the next download resumes it."""
