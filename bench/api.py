"""What one API process takes: `python -m bench.api`.

Accepted jobs a second and their latencies at rising load, and what a status poll costs, beside a bare FastAPI
route that only enqueues with RQ (`bench/bare_route.py`), in the same run. Workers are simulated by one process
that ends jobs at once. Runs a redis-server of its own; all share the machine.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.load import Outcome, load
from bench.report import options, print_table, report, spread
from bench.servers import Server, drain, free_port, serve
from cli.supervisor.redis_server import RedisServer

JOB = {"prompt": "a red circle on a blue background"}
_BARE = ["-m", "uvicorn", "bench.bare_route:create_app", "--factory", "--no-access-log"]


@dataclass(frozen=True)
class Figure:
    """One run against one server."""

    outcome: Outcome
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.outcome.latencies) / self.outcome.seconds

    @property
    def cpu_milliseconds(self) -> float:
        """Processor time of the server for one answer."""
        return self.cpu_seconds / len(self.outcome.latencies) * 1000


def measure(server: Server, method: str, path: str, body: Any, status: int, **how: Any) -> Figure:
    """One run; every answer must have the status."""
    before = server.cpu_seconds()
    outcome = asyncio.run(load(server.port, method, path, body, **how))
    if set(outcome.statuses) != {status}:
        raise RuntimeError(f"{method} {path} gave {dict(outcome.statuses)}: {outcome.bodies[-1]!r}")
    return Figure(outcome, server.cpu_seconds() - before)


@contextmanager
def beside(target: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Run a function in a process of its own for as long as the block does."""
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


class Bench:
    """The two servers, one Redis, and how long to measure."""

    def __init__(self, redis_url: str, api: Server, bare: Server, seconds: float, runs: int) -> None:
        self._redis_url, self._api, self._bare = redis_url, api, bare
        self._seconds, self._runs = seconds, runs

    def pairs(self, call: Callable[[Server], Figure]) -> tuple[list[Figure], list[Figure]]:
        """Both servers in turn, as often as asked; first once each, unmeasured."""
        with beside(drain, self._redis_url, 0.02):
            call(self._bare), call(self._api)
            bare, ours = zip(*((call(self._bare), call(self._api)) for _ in range(self._runs)), strict=True)
        return list(bare), list(ours)

    def accept(self, rates: list[int]) -> None:
        """Jobs accepted, at rising load and as fast as they are answered."""
        rows = []
        for per_second in [*rates, None]:
            bare, ours = self.pairs(
                lambda server, rate=per_second: measure(  # type: ignore[misc]
                    server, "POST", "/v1/txt2img", JOB, 202, per_second=rate, seconds=self._seconds,
                    connections=64 if rate else 16,
                )
            )  # fmt: skip
            rows.append([per_second or "as fast as answered", *_row(bare, ours)])
        print_table(f"jobs sent a second | {_HEAD}", rows)

    def poll(self) -> None:
        """Looks at a waiting job, as fast as they are answered."""
        ids = {}
        for server in (self._bare, self._api):
            made = measure(server, "POST", "/v1/txt2img", JOB, 202, per_second=None, seconds=0.01, connections=1)
            ids[server.pid] = json.loads(made.outcome.bodies[0])["id"]

        def look(server: Server) -> Figure:
            path = f"/v1/jobs/{ids[server.pid]}"
            return measure(server, "GET", path, None, 200, per_second=None, seconds=self._seconds, connections=16)

        print_table(f"call | {_HEAD}", [["GET /v1/jobs/{id}", *_row(*self.pairs(look))]])


_CELLS = "a second | p50 ms | p99 ms | CPU ms"
_HEAD = f"bare: {_CELLS} | ours: {_CELLS} | CPU ours ÷ bare"


def _row(bare: list[Figure], ours: list[Figure]) -> list[str]:
    cells = []
    for figures in (bare, ours):
        cells += [spread([one.rate for one in figures], 0), *_medians(figures)]
    ratios = [mine.cpu_milliseconds / other.cpu_milliseconds for other, mine in zip(bare, ours, strict=True)]
    return [*cells, spread(ratios, 2)]


def _medians(figures: list[Figure]) -> list[str]:
    """p50 and p99 of the latencies, and the server's CPU time of an answer, all in milliseconds."""
    latencies = [[one.outcome.milliseconds(share) for one in figures] for share in (0.5, 0.99)]
    cpu = statistics.median(one.cpu_milliseconds for one in figures)
    return [*(f"{statistics.median(each):.1f}" for each in latencies), f"{cpu:.2f}"]


def main() -> None:
    """Measure and print the tables."""
    parser = options(__doc__, runs=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="length of one run (%(default)s)")
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
