"""What the service costs on top of diffusers, and what it gains: `python -m bench.overhead`.

A bare loop, one by one and in batches, Darkroom (one worker), with steps shared and not, and LitServe with the
same pipelines and batches answer the same orders for shapes-sdxl with PNG files: mixed prompts, then mixed tasks,
then mixed LoRAs. One thread computes, with the same arithmetic everywhere (`compute_alike`), so that a seed
gives the same bytes. Rivals follow each other in every run, the others idle meanwhile, and ratios are taken within
one run; runs are short and many, since a machine's speed drifts.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.diffusers_loop import MIXES, DiffusersLoop, Order, compute_alike, make_orders, to_base64, to_body
from bench.load import Connection
from bench.report import options, print_table, report, spread
from bench.servers import Server, darkroom, litserve

#: Orders before the first measured one: every task and every LoRA.
_WARM_UP = 4
#: Requests sent at the same time.
_CLIENTS = 16


@dataclass(frozen=True)
class Rival:
    """A server, or the bare loop in this process.

    Attributes:
        answer: returns when all these orders, sent at once, are answered.
        cpu_seconds: processor time used so far by all its processes.
    """

    name: str
    answer: Callable[[Sequence[Order]], None]
    cpu_seconds: Callable[[], float]

    def run(self, orders: Sequence[Order]) -> tuple[float, float]:
        """Images a second at full load, and processor seconds an image."""
        cpu, started = self.cpu_seconds(), time.perf_counter()
        self.answer(orders)
        seconds = time.perf_counter() - started
        return len(orders) / seconds, (self.cpu_seconds() - cpu) / len(orders)


def bare_loops(batch: int) -> list[Rival]:
    """The loop in this process: one image after another, and as many as one call may make."""
    loop = DiffusersLoop()

    def answer(orders: Sequence[Order], at_once: int) -> None:
        for first in range(0, len(orders), at_once):
            for image in loop.generate(orders[first : first + at_once]):
                to_base64(image)

    return [
        Rival("bare loop", partial(answer, at_once=1), time.process_time),
        Rival(f"bare loop, batches of {batch}", partial(answer, at_once=batch), time.process_time),
    ]


def darkroom_rivals(server: Server) -> list[Rival]:
    """The service; orders that may not share calls, and orders that may."""

    async def ask(connection: Connection, order: Order, batchable: bool) -> Any:
        body = to_body(order) | {"batchable": batchable, "response_format": "b64_json"}
        status, answer = await connection.submit(f"/v1/{order.task}", body, "Prefer: wait=60\r\n")
        while status == 202 or json.loads(answer).get("status") in ("queued", "running"):
            status, answer = await connection.ask("GET", f"/v1/jobs/{json.loads(answer)['id']}")
        return json.loads(answer)["images"][0]

    return [
        _served("Darkroom, one by one", server, partial(ask, batchable=False)),
        _served("Darkroom, shared steps", server, partial(ask, batchable=True)),
    ]


def litserve_rival(server: Server, batch: int) -> Rival:
    """The same pipelines behind LitServe."""

    async def ask(connection: Connection, order: Order) -> Any:
        return json.loads((await connection.ask("POST", "/predict", vars(order)))[1])

    return _served(f"LitServe, batches of {batch}", server, ask)


def _served(name: str, server: Server, ask: Callable[[Connection, Order], Awaitable[Any]]) -> Rival:
    """A rival that many clients ask at the same time."""

    async def send(orders: Sequence[Order]) -> None:
        left = list(reversed(orders))

        async def client() -> None:
            async with Connection(server.port) as connection:
                while left:
                    image = await ask(connection, left.pop())
                    if not base64.b64decode(image["b64_json"]).startswith(b"\x89PNG"):
                        raise RuntimeError(f"{name} did not answer with a PNG file")

        await asyncio.gather(*(client() for _ in range(_CLIENTS)))

    return Rival(name, lambda orders: asyncio.run(send(orders)), server.cpu_seconds)


def rates(rivals: Sequence[Rival], mix: str, count: int, runs: int) -> None:
    """Print the table of one mix."""
    for rival in rivals:
        print(f"… {mix}: {rival.name}", file=sys.stderr)
        rival.run(make_orders(mix, _WARM_UP))
    each_run = [make_orders(mix, count, first=_WARM_UP + number * count) for number in range(runs)]
    found = [[rival.run(orders) for rival in rivals] for orders in each_run]
    rows = []
    for number, rival in enumerate(rivals):
        speeds, cpu = zip(*(run[number] for run in found), strict=True)
        ratios = [run[number][0] / run[0][0] for run in found]
        rows.append([rival.name, spread(speeds), spread(ratios, 2), spread(cpu, 3)])
    print_table([f"mixed {mix}", "images/s", "÷ bare loop", "CPU seconds an image"], rows)
    print()


def main() -> None:
    """Measure, and print the tables."""
    parser = options(__doc__, runs=3)
    parser.add_argument("--jobs", type=int, default=16, help="images of one run (%(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="images that one call may make (%(default)s)")
    arguments = parser.parse_args()
    compute_alike()
    limit = {"DARKROOM_WORKER_MAX_ROWS": str(2 * arguments.batch)}  # with guidance an image has two
    with report("overhead"), darkroom(limit) as service, litserve(arguments.batch) as other:
        rivals = [*bare_loops(arguments.batch), *darkroom_rivals(service), litserve_rival(other, arguments.batch)]
        for mix in MIXES:
            rates(rivals, mix, arguments.jobs, arguments.runs)
        print(f"median (range) of {arguments.runs} runs of {arguments.jobs} images")


if __name__ == "__main__":
    main()
