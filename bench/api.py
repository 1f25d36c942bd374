"""What one API process takes: `python -m bench.api`.

Accepted jobs a second and their latencies at rising load, and what a status poll costs, beside a bare FastAPI
route that only enqueues with RQ (`create_bare_app`), in the same run. Workers are simulated by one process
that ends jobs at once. Runs a redis-server of its own; all share the machine.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from redis import Redis
from rq import Queue
from rq.job import Job

from bench.load import LoadResult, load
from bench.report import options, print_table, report, spread
from bench.servers import Server, free_port, serve
from cli.supervisor.redis_server import RedisServer
from contracts.jobs.records import JobState
from contracts.leases.claims import Claims
from contracts.leases.criteria import ClaimCriteria
from contracts.settings import QueueSettings

JOB = {"prompt": "a red circle on a blue background"}
#: The same event loop and the same parser as the service has, whatever else is installed.
_SERVER = ["--loop", "asyncio", "--http", "h11", "--no-access-log"]
_BARE = ["-m", "uvicorn", "bench.api:create_bare_app", "--factory", *_SERVER]


def measure(server: Server, method: str, path: str, body: Any, status: int, **how: Any) -> LoadResult:
    """One run; every answer must have the status."""
    before = server.cpu_seconds()
    outcome = asyncio.run(load(server.port, method, path, body, **how))
    if set(outcome.statuses) != {status}:
        raise RuntimeError(f"{method} {path} gave {dict(outcome.statuses)}: {outcome.bodies[-1]!r}")
    outcome.cpu_seconds = server.cpu_seconds() - before
    return outcome


def create_bare_app() -> FastAPI:
    """What many write first: two FastAPI routes that only enqueue with RQ, and look."""
    connection = Redis.from_url(os.environ["DARKROOM_REDIS_URL"])
    queue, app = Queue("bare", connection=connection), FastAPI()

    @app.post("/v1/txt2img", status_code=202)
    def submit(body: dict[str, Any]) -> dict[str, str]:
        return {"id": queue.enqueue("nobody.runs_this", body).id}

    @app.get("/v1/jobs/{id}")
    def show(id: str) -> dict[str, str]:
        return {"id": id, "status": str(Job.fetch(id, connection=connection).get_status())}

    return app


def drain(redis_url: str) -> None:
    """Simulate one worker that claims jobs and ends them at once, until it is killed."""
    with Redis.from_url(redis_url, decode_responses=True) as connection:
        claims = Claims(connection, QueueSettings(), "simulated", ttl_seconds=86_400)
        while True:
            claim = claims.claim(ClaimCriteria())
            if claim is None:
                time.sleep(0.02)
            else:
                claims.finish(claim, JobState.COMPLETED, images=[])


@dataclass(frozen=True)
class Bench:
    """The two servers, one Redis, and how long to measure."""

    redis_url: str
    api: Server
    bare: Server
    seconds: float
    runs: int

    def pairs(self, call: Callable[[Server], LoadResult]) -> tuple[list[LoadResult], list[LoadResult]]:
        """Both servers in turn, as often as asked; first once each, unmeasured."""
        worker = multiprocessing.get_context("spawn").Process(target=drain, args=[self.redis_url], daemon=True)
        worker.start()
        try:
            found = [(call(self.bare), call(self.api)) for _ in range(self.runs + 1)][1:]
        finally:
            worker.kill()
            worker.join()
        return [bare for bare, _ in found], [ours for _, ours in found]

    def accept(self, rates: list[int]) -> None:
        """Jobs accepted, at rising load and as fast as they are answered."""
        rows = []
        for per_second in [*rates, None]:
            bare, ours = self.pairs(
                lambda server, rate=per_second: measure(  # type: ignore[misc]
                    server, "POST", "/v1/txt2img", JOB, 202, per_second=rate, seconds=self.seconds,
                    clients=64 if rate else 16,
                )
            )  # fmt: skip
            rows.append([per_second or "as fast as answered", *_row(bare, ours)])
        print_table(f"jobs sent a second | {_HEAD}", rows)

    def poll(self) -> None:
        """Looks at a waiting job, as fast as they are answered."""
        ids = {}
        for server in (self.bare, self.api):
            made = measure(server, "POST", "/v1/txt2img", JOB, 202, per_second=None, seconds=0.01, clients=1)
            ids[server.port] = json.loads(made.bodies[0])["id"]

        def look(server: Server) -> LoadResult:
            path = f"/v1/jobs/{ids[server.port]}"
            return measure(server, "GET", path, None, 200, per_second=None, seconds=self.seconds, clients=16)

        print_table(f"call | {_HEAD}", [["GET /v1/jobs/{id}", *_row(*self.pairs(look))]])


_CELLS = "a second | p50 ms | p99 ms | CPU ms"
_HEAD = f"bare: {_CELLS} | ours: {_CELLS} | CPU ours ÷ bare"


def _row(bare: list[LoadResult], ours: list[LoadResult]) -> list[str]:
    cells = []
    for figures in (bare, ours):
        cells += [spread([one.rate for one in figures], 0), *_medians(figures)]
    ratios = [mine.cpu_milliseconds / other.cpu_milliseconds for other, mine in zip(bare, ours, strict=True)]
    return [*cells, spread(ratios, 2)]


def _medians(figures: list[LoadResult]) -> list[str]:
    """p50 and p99 of the latencies, and the server's CPU time of an answer, all in milliseconds."""
    latencies = [[one.milliseconds(share) for one in figures] for share in (0.5, 0.99)]
    cpu = statistics.median(one.cpu_milliseconds for one in figures)
    return [*(f"{statistics.median(each):.1f}" for each in latencies), f"{cpu:.2f}"]


def main() -> None:
    """Measure and print the tables."""
    parser = options(__doc__, runs=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one run (%(default)s)")
    parser.add_argument("--rates", type=int, nargs="+", default=[100, 300])
    arguments = parser.parse_args()
    with report("api"), ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = RedisServer(data / "redis")
        stack.callback(server.stop)
        server.start()
        environment = {
            "DARKROOM_REDIS_URL": server.url, "DARKROOM_DATA": str(data),
            **{f"DARKROOM_API_MAX_WAITING{rest}": "1000000" for rest in ("", "_PER_OWNER")},
            **{f"DARKROOM_API_ANONYMOUS_{limit}": "0" for limit in ("CALLS_PER_MINUTE", "MAX_JOBS")},
        }  # fmt: skip
        port, api_port = free_port(), free_port()
        bare = stack.enter_context(serve([*_BARE, "--port", str(port)], port, "/docs", environment))
        environment["DARKROOM_API_PORT"] = str(api_port)
        api = stack.enter_context(serve(["-m", "app"], api_port, "/healthz", environment))
        bench = Bench(server.url, api, bare, arguments.seconds, arguments.runs)
        bench.accept(arguments.rates)
        print()
        bench.poll()


if __name__ == "__main__":
    main()
