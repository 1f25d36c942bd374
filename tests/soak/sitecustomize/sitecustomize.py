"""Imported by each process of the service: SIGUSR1 makes it spin in native code, with the interpreter's lock.

Workers are nice from their start: a real service's compute on GPUs, and leave the processors to the API.
"""

import os
import re
import signal
import sys

_WORKERS_NICENESS = 10


def _spin(number: int, frame: object) -> None:
    re.match(r"(a+)+$", "a" * 100 + "!")


signal.signal(signal.SIGUSR1, _spin)
if "worker" in sys.orig_argv:
    os.nice(_WORKERS_NICENESS)
