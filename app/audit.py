"""One log line for each action of an operator: what was done, to what, and with which key."""

from __future__ import annotations

import logging

from app.auth import Principal

_log = logging.getLogger(__name__)


def record_action(principal: Principal, action: str, **details: str | int) -> None:
    """Log an action that has been done; `details` name what it was done to, and hold no prompt."""
    told = ", ".join(f"{name} {value}" for name, value in details.items())
    fields = {"action": action, "api_key": principal.key_id, "by": principal.owner, **details}
    _log.info("operator %s: %s%s", principal.key_id, action, f" ({told})" if told else "", extra=fields)
