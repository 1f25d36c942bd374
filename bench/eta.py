"""How right the times are that the service promises, under a mixed load over HTTP: `python -m bench.eta`.

Runs `darkroom up` on the shapes models. Jobs of all models, lengths and priorities come at random, at a part of
what the worker can do; what each is told as it is accepted is compared with when it ended.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import httpx

from bench.report import options, print_table, report
from bench.servers import darkroom

_MODELS = ("shapes-sdxl", "shapes-sd3", "shapes-flux")
_STEPS = (4, 12, 30, 100)
#: Jobs before the load, from which the service learns: of each model and size, and of the mix.
_FIRST_JOBS, _MIXED_JOBS = 4, 20


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


def send(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """The job as it is accepted."""
    return dict(client.post("/v1/txt2img", json=body).raise_for_status().json())


def wait(client: httpx.Client, id: str) -> float:
    """Wait for a job's end; returns the seconds since it was accepted."""
    while True:
        job = client.get(f"/v1/jobs/{id}").raise_for_status().json()
        if job["finished_at"] is not None:
            accepted, ended = (datetime.fromisoformat(job[name]) for name in ("created_at", "finished_at"))
            return (ended - accepted).total_seconds()
        time.sleep(0.2)


def learn(client: httpx.Client, drawn: random.Random) -> float:
    """Run some jobs alone, one after another; returns the mean seconds of a job of the mix."""
    for model in _MODELS * _FIRST_JOBS:
        wait(client, send(client, {"prompt": "a red circle", "model": model, "num_inference_steps": 12})["id"])
    return statistics.fmean(wait(client, send(client, draw_job(drawn))["id"]) for _ in range(_MIXED_JOBS))


def row(client: httpx.Client, drawn: random.Random, count: int, load: float, job_seconds: float) -> list[str]:
    """The figures of one load: jobs sent at random, what each was promised, and the seconds that it took."""
    sent: list[dict[str, Any]] = []
    for _ in range(count):
        time.sleep(drawn.expovariate(load / job_seconds))
        sent.append(send(client, draw_job(drawn)))
    taken = [wait(client, job["id"]) for job in sent]
    promised: Sequence[Any] = [job["progress"] for job in sent]
    errors = [abs(one["eta_seconds"] / seconds - 1) for one, seconds in zip(promised, taken, strict=True)]
    ranges = [one["eta_range_seconds"] for one in promised]
    in_range = sum(low <= seconds <= high for (low, high), seconds in zip(ranges, taken, strict=True))
    shares = [f"{part / count:.0%}" for part in (sum(error <= 0.25 for error in errors), in_range)]
    return [f"{load:.0%}", str(count), f"{statistics.fmean(errors):.0%}", *shares]


def main() -> None:
    """Measure and print."""
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=60, help="of each load (%(default)s)")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.3, 0.5], help="parts of what a worker can do")
    chosen, drawn = parser.parse_args(), random.Random(1)
    with report("eta"), darkroom({}) as server, httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
        job_seconds = learn(client, drawn)
        rows = [row(client, drawn, chosen.jobs, load, job_seconds) for load in chosen.loads]
        print_table("load | jobs | mean error | within 25 % | within the range", rows)


if __name__ == "__main__":
    main()
