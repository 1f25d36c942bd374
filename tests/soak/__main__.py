"""The phases of a soak; see `tests.soak`."""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.soak.faults import Faults
from tests.soak.honest import HonestClients
from tests.soak.memory import MemorySampler
from tests.soak.report import Phase, Report
from tests.support.running_service import RunningService

_GIB = 2**30
#: Shares of the undisturbed and the attacked phase; the rest is for recovering.
_UNDISTURBED, _ATTACKED = 0.2, 0.65
_PATIENCE_SECONDS = 300.0


def main() -> int:
    """Run a soak; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="darkroom-soak-") as folder:
        report = _soak(Path(folder), options.minutes * 60, options.workers, options.seed)
    report.print()
    broken = report.judge()
    print("broken" if broken else "sound")
    return 1 if broken else 0


def _soak(folder: Path, seconds: float, workers: int, seed: int) -> Report:
    data = folder / "data"
    # What is free now but 2 GiB: a file of that size leaves less than the reserve, and the disk is far from full.
    reserve = max(0, os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize - 2 * _GIB)
    service = RunningService(data, "--workers", str(workers), environment=_environment(reserve))
    try:
        # The hostile key has the limits that a key has unless somebody chooses others.
        honest = _make_key(data, "honest", "--calls-per-minute", "0", "--max-jobs", "0")
        hostile = _make_key(data, "hostile")
        service.http.headers["authorization"] = f"Bearer {honest}"
        clients, memory = HonestClients(service.url, honest), MemorySampler(service)
        memory.start()
        time.sleep(3)
        clients.start()
        phases = [_wait("undisturbed", seconds * _UNDISTURBED)]
        attacks = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.attacks", service.url, hostile],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that its niceness counts beside the service's programs
        )
        faults = Faults(service, seed, reserve)
        faults.start()
        phases.append(_wait("attacked", seconds * _ATTACKED))
        faults.stop()  # the last fault may take a minute to be over
        phases[-1].end = time.monotonic()
        attacks.terminate()
        answers = json.loads(attacks.communicate(timeout=60)[0])
        phases.append(_wait("recovering", seconds * (1 - _UNDISTURBED - _ATTACKED)))
        clients.stop(_PATIENCE_SECONDS)
        phases[-1].end = time.monotonic()
        memory.stop()
        problems = [*faults.problems, *(f"answered 500: {text}" for text in answers["odd"])]
    finally:
        status = service.stop()
    if status != 0:
        problems.append(
            f"`darkroom up` ended with status {status}:\n{service.log.read_text(errors='replace')[-2000:]}"
        )
    return Report(
        clients.books, phases, faults.outages, memory, answers["answers"], faults.caused, faults.begun,
        faults.recovery_seconds, problems,
    )  # fmt: skip


def _environment(reserve: int) -> dict[str, str]:
    return {
        "DARKROOM_API_RESERVE_BYTES": str(reserve),
        "DARKROOM_QUEUE_LEASE_SECONDS": "5",
        "DARKROOM_HANG_SECONDS": "20",
        # So that records, and with them Redis' memory, reach a level within minutes.
        "DARKROOM_RESULT_TTL_SECONDS": "240",
        "DARKROOM_GONE_SECONDS": "60",
        "DARKROOM_OUTBOUND_NETWORKS": '["127.0.0.0/8"]',
        "PYTHONPATH": str(Path(__file__).parent / "sitecustomize"),
        "OMP_NUM_THREADS": "1",
    }


def _make_key(data: Path, name: str, *options: str) -> str:
    command = [sys.executable, "-m", "cli.main", "keys", "create", name, "--data", str(data), *options]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def _wait(name: str, seconds: float) -> Phase:
    begin = time.monotonic()
    print(f"{name}: {seconds:.0f} s", flush=True)
    time.sleep(seconds)
    return Phase(name, begin, time.monotonic())


if __name__ == "__main__":
    sys.exit(main())
