"""One HTTP POST to a webhook's receiver; the body of the answer is not read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from contracts.outbound.http import OutboundClient, trusted_certificates
from contracts.settings import OutboundSettings


@dataclass(frozen=True)
class Answer:
    """A receiver's response.

    Attributes:
        retry_after_seconds: from its Retry-After header; None without one.
    """

    status_code: int
    retry_after_seconds: float | None


class Poster:
    """HTTP client that posts to receivers. Belongs to one event loop."""

    def __init__(self, rules: OutboundSettings, timeout_seconds: float) -> None:
        self._client = OutboundClient(rules, timeout_seconds, trusted_certificates())

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Post a body; see `OutboundClient.stream` for the errors raised."""
        async with self._client.stream("POST", url, headers, body) as response:
            return Answer(response.status_code, _read_retry_after(response.headers.get("retry-after", "")))

    async def close(self) -> None:
        """Close open connections."""
        await self._client.aclose()


def _read_retry_after(text: str) -> float | None:
    """Parse a Retry-After header, a number of seconds or a date; None where it is neither (RFC 9110, 10.2.3)."""
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # a year or an offset with too many digits
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
