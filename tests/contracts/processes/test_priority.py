import os
import subprocess
import sys
from pathlib import Path

_GROUPS = Path("/proc/self/autogroup")
_SCRIPT = """
import os, sys
from contracts.processes.priority import give_way
before = os.nice(0)
give_way(before + int(sys.argv[1]))
give_way(0)
print(before, os.nice(0))
print(open("/proc/self/autogroup").read() if os.path.exists("/proc/self/autogroup") else "")
"""


def _after(niceness: int, *, leads_session: bool) -> tuple[int, str]:
    """By how much a process is nicer afterwards, and what the kernel says of its session."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(niceness)],
        capture_output=True, text=True, check=True, start_new_session=leads_session,
    )  # fmt: skip
    first, session, *_ = done.stdout.split("\n")
    before, after = map(int, first.split())
    return after - before, session


def test_a_process_gives_way_and_does_not_take_it_back() -> None:
    added, _ = _after(3, leads_session=False)
    assert added == 3


def test_more_than_the_lowest_priority_is_the_lowest() -> None:
    added, _ = _after(50, leads_session=False)
    assert os.nice(0) + added == 19


def test_a_process_that_leads_its_session_lowers_the_sessions_priority_too() -> None:
    added, session = _after(3, leads_session=True)
    assert session.endswith(f" nice {os.nice(0) + added}" if _GROUPS.exists() else "")


def test_a_process_in_the_session_of_others_leaves_their_priority_alone() -> None:
    _, session = _after(3, leads_session=False)
    assert session == (_GROUPS.read_text().strip() if _GROUPS.exists() else "")
