"""What a stock `rq worker` that calls a message's function is told."""

from __future__ import annotations

import pytest

from dispatcher.rq_job import deliver_message


def test_a_stock_worker_is_told_that_a_dispatcher_delivers_messages() -> None:
    with pytest.raises(RuntimeError, match=r"message msg_1 must be delivered by a Darkroom dispatcher"):
        deliver_message("msg_1")
