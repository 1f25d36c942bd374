"""A dispatcher whose event loop hangs ends, and says where it hung."""

from __future__ import annotations

import os

from tests.support.forked_text import running

HANGING_DISPATCHER = """
import sys, time
from dispatcher.dispatcher import Dispatcher
from dispatcher.main import main

def run(dispatcher):
    dispatcher.event_loop.call_soon_threadsafe(time.sleep, 60)
    time.sleep(60)

Dispatcher.run = run
sys.exit(main())
"""


def test_a_dispatcher_whose_event_loop_hangs_exits(redis_url: str) -> None:
    environment = os.environ | {"DARKROOM_REDIS_URL": redis_url, "DARKROOM_HANG_SECONDS": "1"}
    with running(HANGING_DISPATCHER, environment=environment) as (process, _):
        _, error = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "run_forever" in error, "no traceback of the event loop"
