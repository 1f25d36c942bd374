"""What mixed jobs wait for at several loads, and how many are served: `python -m bench.steps`.

Jobs of 4, 28 and 50 steps (30, 50 and 20 %) of two models, three tasks and two LoRAs each, one image of 64 × 64,
arrive at random (Poisson): at Darkroom with one worker, whose jobs share the denoiser step by step; at the same
with DARKROOM_WORKER_SCHEDULING=fifo, which runs one job after another; and at LitServe with static batches of the
same pipelines. Loads are multiples of what fifo serves, measured first in each run. All get the same jobs at the
same moments, one server after another, and a latency counts from the moment of arrival.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from bench.diffusers_loop import COLOURS, DiffusersLoop, Order, compute_alike, to_base64, to_body
from bench.load import Connection
from bench.report import options, percentile, print_table, report, spread
from bench.servers import Server, darkroom, litserve

_STEPS = {4: 3, 28: 5, 50: 2}
_MODELS = ("shapes-sdxl", "shapes-flux")
_TASKS = ("txt2img", "img2img", "inpaint")
_LORAS = (None, "tint", "stripes")
#: Of the jobs of 4 steps, the share with priority `high`.
_HIGH = 0.2
#: Jobs before the first measured one.
_WARM_UP = 16


@dataclass(frozen=True)
class Answer:
    """Result of one order; seconds since its arrival."""

    order: Order
    seconds: float
    first_step_seconds: float | None = None


@dataclass
class Rival:
    """A server, and how it is asked; `answers` are those of one load."""

    name: str
    ask: Callable[[Order, float], Awaitable[Answer]]
    answers: dict[float, list[Answer]] = field(default_factory=dict)
    images_per_second: list[float] = field(default_factory=list)


def draw_orders(count: int, seed: int) -> list[Order]:
    """Jobs of the mix; the same for the same seed."""
    chance, orders = random.Random(seed), []
    for number in range(count):
        model, lora = chance.choice(_MODELS), chance.choice(_LORAS)
        steps = chance.choices(list(_STEPS), list(_STEPS.values()))[0]
        colour, ground = chance.sample(COLOURS, 2)
        prompt = f"a {colour} {chance.choice(('circle', 'square', 'triangle'))} on a {ground} background"
        priority = "high" if steps == min(_STEPS) and chance.random() < _HIGH else "normal"
        adapter = lora and f"{model}-{lora}"
        orders.append(Order(prompt, number, chance.choice(_TASKS), adapter, model, steps, 1.0, priority))
    return orders


def _darkroom_rival(name: str, server: Server) -> Rival:
    async def see(job_id: str, event: str) -> bool:
        async with Connection(server.port) as connection:
            return await connection.event(f"/v1/jobs/{job_id}/events", event)

    async def ask(order: Order, due: float) -> Answer:
        first_step = None
        async with Connection(server.port) as connection:
            status, body = await connection.submit(f"/v1/{order.task}", to_body(order) | {"batchable": True})
        job = json.loads(body)
        if status >= 300:
            raise RuntimeError(f"{name} answered {status}: {job}")
        if order.priority == "high" and await see(job["id"], "progress"):
            first_step = time.perf_counter() - due
        if not await see(job["id"], "completed"):
            raise RuntimeError(f"{name} did not complete job {job['id']}")
        return Answer(order, time.perf_counter() - due, first_step)

    return Rival(name, ask)


def _litserve_rival(name: str, server: Server) -> Rival:
    async def ask(order: Order, due: float) -> Answer:
        async with Connection(server.port) as connection:
            status, body = await connection.ask("POST", "/predict", vars(order))
        if status != 200:
            raise RuntimeError(f"{name} answered {status}: {body!r}")
        return Answer(order, time.perf_counter() - due)

    return Rival(name, ask)


def _bare_rival() -> Rival:
    loop = DiffusersLoop()

    async def ask(order: Order, due: float) -> Answer:
        to_base64(loop.generate([order])[0])
        return Answer(order, time.perf_counter() - due)

    return Rival("bare loop", ask)


def offer(rival: Rival, orders: Sequence[Order], pauses: Sequence[float]) -> list[Answer]:
    """Send each order so many seconds after the one before; returns when all are answered."""

    async def send() -> list[Answer]:
        due, tasks = time.perf_counter(), []
        for order, pause in zip(orders, pauses, strict=True):
            due += pause
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.ensure_future(rival.ask(order, due)))
        return list(await asyncio.gather(*tasks))

    return asyncio.run(send())


def saturate(rivals: Sequence[Rival], orders: Sequence[Order]) -> None:
    """Send all orders at once, and note the images a second."""
    for rival in rivals:
        print(f"… saturated: {rival.name}", file=sys.stderr)
        started = time.perf_counter()
        offer(rival, orders, [0.0] * len(orders))
        rival.images_per_second.append(len(orders) / (time.perf_counter() - started))


def arrive(rivals: Sequence[Rival], load: float, per_second: float, seconds: float, seed: int) -> None:
    """Let jobs arrive at each server for a while."""
    chance, pauses = random.Random(seed), []
    while sum(pauses) < seconds:
        pauses.append(chance.expovariate(per_second))
    orders = draw_orders(len(pauses), seed)
    for rival in rivals:
        print(f"… load {load}: {rival.name}, {len(orders)} jobs", file=sys.stderr)
        rival.answers.setdefault(load, []).extend(offer(rival, orders, pauses))


def _figures(answers: Sequence[Answer]) -> list[float | None]:
    """Mean; p95 of 4-step jobs; p99 of 50-step ones; p95 of the first step of `high` ones."""
    normal = [answer for answer in answers if answer.order.priority == "normal"]
    short, long = ([one.seconds for one in normal if one.order.steps == steps] for steps in (4, 50))
    first = [answer.first_step_seconds for answer in answers if answer.first_step_seconds is not None]
    mean = sum(answer.seconds for answer in answers) / len(answers)
    parts = ((short, 0.95), (long, 0.99), (first, 0.95))
    return [mean, *(percentile(found, share) if found else None for found, share in parts)]


def print_latencies(servers: Sequence[Rival]) -> None:
    """One row for each load and server; in brackets the ratio to fifo."""
    rows = []
    for load in servers[0].answers:
        fifo = _figures(servers[1].answers[load])
        for server in servers:
            cells = [
                "–" if own is None else f"{own:.2f}" + (f" ({own / other:.2f})" if other else "")
                for own, other in zip(_figures(server.answers[load]), fifo, strict=True)
            ]
            rows.append([load, server.name, len(server.answers[load]), *cells])
    heads = "load |  | jobs | mean s | 4 steps, p95 s | 50 steps, p99 s | first step of `high`, p95 s"
    print_table(heads, rows)


def main() -> None:
    """Measure, and print the tables."""
    parser = options(__doc__, runs=2)
    parser.add_argument("--seconds", type=float, default=60, help="of arrivals at each load (%(default)s)")
    parser.add_argument(
        "--loads",
        type=float,
        nargs="*",
        default=[0.5, 0.8, 1.2],
        help="none: only what is served at once (%(default)s)",
    )
    parser.add_argument("--jobs", type=int, default=40, help="sent at once to find what is served (%(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="images of a batch of LitServe (%(default)s)")
    arguments = parser.parse_args()
    compute_alike()
    warm = {"DARKROOM_WORKER_WARM": json.dumps(_MODELS)}
    fifo = warm | {"DARKROOM_WORKER_SCHEDULING": "fifo"}
    with report("steps"), darkroom(warm) as own, darkroom(fifo) as plain, litserve(arguments.batch) as other:
        servers = [
            _darkroom_rival("Darkroom, steps", own),
            _darkroom_rival("Darkroom, fifo", plain),
            _litserve_rival(f"LitServe, batches of {arguments.batch}", other),
        ]
        rivals = [_bare_rival(), *servers]
        for rival in rivals:
            offer(rival, draw_orders(_WARM_UP, seed=0), [0.0] * _WARM_UP)
        for run in range(1, arguments.runs + 1):
            saturate(rivals, draw_orders(arguments.jobs, seed=run))
            for load in arguments.loads:
                arrive(servers, load, load * servers[1].images_per_second[-1], arguments.seconds, seed=run)
        if arguments.loads:
            print_latencies(servers)
        print()
        rows = []
        for rival in rivals:
            speeds = rival.images_per_second
            ratios = [one / bare for one, bare in zip(speeds, rivals[0].images_per_second, strict=True)]
            rows.append([rival.name, spread(speeds), spread(ratios, 2)])
        print_table(f"{arguments.jobs} jobs at once | images/s | ÷ bare loop", rows)


if __name__ == "__main__":
    main()
