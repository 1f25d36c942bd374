"""A process that had large blocks in memory gives them back; in a process of its own, since that is for good."""

from __future__ import annotations

import subprocess
import sys

MIB = 2**20
#: Eight threads with 8 MiB each, as for bodies of requests, and with small blocks that stay behind them.
PROGRAM = """
import sys, threading
from contracts.processes.allocator import return_large_blocks
if sys.argv[1:] == ["return"]:
    return_large_blocks()
stays, barrier = [], threading.Barrier(8)

def work():
    for _ in range(6):
        large, small = bytearray(8 * 2**20), [bytes(600) for _ in range(1000)]
        stays.append(small[-1])
        barrier.wait()
        del large, small

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(int(open("/proc/self/statm").read().split()[1]) * 4096)
"""


def resident_bytes(*options: str) -> int:
    command = [sys.executable, "-c", PROGRAM, *options]
    return int(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)


def test_large_blocks_are_given_back_once_they_are_free() -> None:
    # Eight blocks were in use; by default most of them stay.
    assert resident_bytes("return") < resident_bytes() - 24 * MIB
