"""Imported by each process of the service: SIGUSR1 makes it spin in native code, with the interpreter's lock."""

import re
import signal


def _spin(number: int, frame: object) -> None:
    re.match(r"(a+)+$", "a" * 100 + "!")


signal.signal(signal.SIGUSR1, _spin)
