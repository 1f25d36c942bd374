"""The function that RQ's record of a message names. Imports nothing: a stock `rq worker` may load it anywhere."""

from __future__ import annotations

from typing import NoReturn


def deliver_message(message_id: str) -> NoReturn:
    """Refuse: only a Darkroom dispatcher delivers messages; it takes them itself and calls no function by name.

    Raises:
        RuntimeError: always. The message goes back to its queue when a worker or an API process next reaps.
    """
    raise RuntimeError(
        f"message {message_id} must be delivered by a Darkroom dispatcher (python -m dispatcher), "
        "not by a stock rq worker; the message goes back to its queue"
    )
