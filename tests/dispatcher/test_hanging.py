"""A dispatcher whose event loop hangs ends, and says where it hung."""

from __future__ import annotations

import os
import subprocess
import sys

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
    done = subprocess.run(
        [sys.executable, "-c", HANGING_DISPATCHER],
        env=os.environ | {"DARKROOM_REDIS_URL": redis_url, "DARKROOM_HANG_SECONDS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert "run_forever" in done.stderr, "no traceback of the event loop"
