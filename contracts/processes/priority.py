"""Lowers this process's priority for the processor, also where Linux shares it between sessions first."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

#: The niceness of this process's session, where the kernel groups processes by session: sched(7), "The autogroup
#: feature". A process's own niceness then counts only within its session.
_SESSION = Path("/proc/self/autogroup")
_LOWEST = 19


def give_way(niceness: int) -> None:
    """Let processes of a lower niceness go first; a priority that is lower already stays.

    A process that leads its session lowers the session's priority with its own: without that, processes of
    other sessions (of a service, each program has its own) would not be ahead of it.

    Args:
        niceness: as nice(1) has it; 19 where it is more.
    """
    niceness = min(_LOWEST, max(niceness, os.getpriority(os.PRIO_PROCESS, 0)))
    os.setpriority(os.PRIO_PROCESS, 0, niceness)
    if os.getsid(0) == os.getpid():
        with suppress(OSError):  # a kernel without such groups, or a /proc that cannot be written to
            _SESSION.write_text(str(niceness), encoding="ascii")
