"""Checks webhooks that Darkroom signed, by Standard Webhooks 1.0. Receives nothing itself."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

from darkroom_client.errors import DarkroomError


def verify_webhook(
    body: bytes, headers: Mapping[str, str], secret: str, *, tolerance_seconds: float = 300.0
) -> dict[str, Any]:
    """Return the job that a webhook reports, if it was signed with the secret.

    Args:
        body: of the request, as it was received.
        headers: of the request, in any case of letters.
        secret: `whsec_…`, from `GET /v1/webhooks/secret`.
        tolerance_seconds: greatest difference between its time and this machine's clock.

    Raises:
        DarkroomError: `bad_signature`; the body may be anybody's, and must not be used.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    id, timestamp = lower.get("webhook-id", ""), lower.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > tolerance_seconds:
        raise DarkroomError(
            "bad_signature", f"webhook-timestamp is missing or too far from now: {timestamp[:20]!r}"
        )
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, b".".join([id.encode(), timestamp.encode(), body]), hashlib.sha256).digest()
    wanted = f"v1,{base64.b64encode(digest).decode()}"
    given = lower.get("webhook-signature", "").split()
    if not any(hmac.compare_digest(wanted.encode(), signature.encode()) for signature in given):
        raise DarkroomError("bad_signature", "no signature of webhook-signature is that of this body and secret")
    job: dict[str, Any] = json.loads(body)
    return job
