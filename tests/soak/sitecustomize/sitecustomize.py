"""Imported by each process of the service: SIGUSR1 makes it spin in native code, with the interpreter's lock.

Workers are nice from their start: a real service's compute on GPUs, and leave the processors to the API.
"""

import re
import signal
import sys

from contracts.processes.priority import give_way

_WORKERS_NICENESS = 10


def _spin(number: int, frame: object) -> None:
    re.match(r"(a+)+$", "a" * 100 + "!")


signal.signal(signal.SIGUSR1, _spin)
if "worker" in sys.orig_argv:
    give_way(_WORKERS_NICENESS)
