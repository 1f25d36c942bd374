"""How right the times are that the service promises, under a mixed load over HTTP: `python -m bench.eta`.

Runs `darkroom up` on the shapes models. Jobs of all models, lengths and priorities come at random, at a part of
what the worker can do; what each is told as it is accepted is compared with when it ended.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import httpx

from bench.report import options, print_table, report
from bench.servers import free_port, serve

_MODELS = ("shapes-sdxl", "shapes-sd3", "shapes-flux")
_STEPS = (4, 12, 30, 100)
#: Jobs of each model and size before the load, from which the service learns.
_FIRST_JOBS = 4


def draw_job(drawn: random.Random) -> dict[str, Any]:
    """One job of the mix."""
    job = {
        "prompt": "a red circle",
        "model": drawn.choice(_MODELS),
        "num_inference_steps": drawn.choice(_STEPS),
        "num_images": drawn.choice((1, 1, 2)),
        "priority": drawn.choice(("high", "normal", "normal", "low")),
    }
    return job | ({"seed": drawn.randrange(1000)} if drawn.random() < 0.4 else {})


def seconds_taken(job: dict[str, Any]) -> float:
    """From a job's acceptance to its end."""
    accepted, ended = (datetime.fromisoformat(job[name]) for name in ("created_at", "finished_at"))
    return (ended - accepted).total_seconds()


class Load:
    """Jobs of one service."""

    def __init__(self, client: httpx.Client, seed: int) -> None:
        self._client, self._drawn = client, random.Random(seed)

    def learn(self) -> float:
        """Run some jobs alone, one after another; returns the mean seconds of a job of the mix."""
        for model in _MODELS:
            for _ in range(_FIRST_JOBS):
                self._run({"prompt": "a red circle", "model": model, "num_inference_steps": 12})
        return statistics.fmean(seconds_taken(self._run(draw_job(self._drawn))) for _ in range(20))

    def compare(self, count: int, per_second: float) -> list[tuple[float, tuple[float, float], float]]:
        """Send jobs at random; returns of each the promised seconds, their range, and the seconds that it took."""
        sent = []
        for _ in range(count):
            time.sleep(self._drawn.expovariate(per_second))
            sent.append(self._send(draw_job(self._drawn)))
        found = []
        for job in sent:
            progress = job["progress"]
            taken = seconds_taken(self._wait(job["id"]))
            found.append((progress["eta_seconds"], tuple(progress["eta_range_seconds"]), taken))
        return found

    def _send(self, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._client.post("/v1/txt2img", json=body).raise_for_status()
        return dict(answer.json())

    def _wait(self, id: str) -> dict[str, Any]:
        while True:
            job = dict(self._client.get(f"/v1/jobs/{id}").raise_for_status().json())
            if job["finished_at"] is not None:
                return job
            time.sleep(0.2)

    def _run(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._wait(self._send(body)["id"])


def row(load: float, found: Sequence[tuple[float, tuple[float, float], float]]) -> list[str]:
    """The figures of one load."""
    errors = [abs(promised / taken - 1) for promised, _, taken in found]
    in_range = sum(low <= taken <= high for _, (low, high), taken in found)
    within = sum(error <= 0.25 for error in errors)
    shares = [f"{part / len(found):.0%}" for part in (within, in_range)]
    return [f"{load:.0%}", str(len(found)), f"{statistics.fmean(errors):.0%}", *shares]


def main() -> None:
    """Measure and print."""
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=60, help="of each load (%(default)s)")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.3, 0.5], help="parts of what a worker can do")
    chosen, port = parser.parse_args(), free_port()
    with tempfile.TemporaryDirectory() as folder, report("eta"):
        command = ["-m", "cli.main", "up", "--port", str(port), "--data", folder]
        with serve(command, port, "/readyz", {}), httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            load = Load(client, seed=1)
            job_seconds = load.learn()
            rows = [row(part, load.compare(chosen.jobs, part / job_seconds)) for part in chosen.loads]
        print_table("load | jobs | mean error | within 25 % | within the range", rows)


if __name__ == "__main__":
    main()
