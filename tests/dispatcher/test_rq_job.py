"""The function in a message, when a stock `rq worker` calls it."""

from __future__ import annotations

import pytest

from dispatcher.rq_job import deliver_message


def test_a_stock_worker_that_delivers_a_message_gets_a_clear_error() -> None:
    with pytest.raises(RuntimeError, match=r"message msg_1 must be delivered by a Darkroom dispatcher"):
        deliver_message("msg_1")
