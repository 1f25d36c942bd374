"""Which model next: `python -m bench.affinity` compares orders of claiming on a real Redis with simulated work.

One worker, two models A and B in a 70/30 mix; bringing a model in costs five jobs' time. Times are scaled
down (`--scale`) and reported scaled up again. `batch 4` assumes that each further image of a call costs 35 %
of the first one's time. Runs a redis-server of its own.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis

from bench.queue import job
from bench.report import options, report
from bench.table import percentile, print_table, spread
from cli.supervisor.redis_server import RedisServer
from contracts.queue.client import JobQueue
from contracts.queue.leases import Claims
from contracts.queue.records import JobState
from contracts.settings import QueueSettings, SharedSettings
from worker.loop.claim_policy import ClaimPolicy
from worker.settings import WorkerSettings

SWAP_SECONDS, JOB_SECONDS, EXTRA_IMAGE_SHARE = 0.5, 0.1, 0.35
NEVER = 1e9


@dataclass(frozen=True)
class Policy:
    """One order of claiming; seconds are unscaled."""

    name: str
    overdue_seconds: float
    residency_seconds: float
    warm: bool = True
    batch: int = 1


@dataclass
class Outcome:
    """What a run gave; seconds are unscaled."""

    swaps: int = 0
    makespan_seconds: float = 0.0
    waits: dict[str, list[float]] = field(default_factory=lambda: {"model-a": [], "model-b": []})


POLICIES = [
    Policy("FIFO", 0, 0, warm=False),
    Policy("warm only", NEVER, 0),
    Policy("age bound 2 s, no residency", 2, 0),
    Policy("age bound 2 s, residency 2.5 s", 2, 2.5),
    Policy("the same, batch 4", 2, 2.5, batch=4),
]


def run(server: RedisServer, policy: Policy, count: int, rate: float, scale: float) -> Outcome:
    """Send `count` jobs at `rate` a second to one simulated worker under a policy."""
    with Redis.from_url(server.url) as connection:
        connection.flushall()
    queue = JobQueue(SharedSettings(redis_url=server.url))
    own = WorkerSettings(
        max_batch_images=policy.batch,
        batching="on" if policy.batch > 1 else "off",
        residency_seconds=policy.residency_seconds * scale,
    )
    claims = Claims(
        queue.connection, QueueSettings(overdue_seconds=policy.overdue_seconds * scale), "one", ttl_seconds=60
    )
    sender = threading.Thread(target=_send, args=(queue, count, scale / rate))
    outcome, residency, warm, started = Outcome(), ClaimPolicy(own.residency_seconds), "", time.monotonic()
    sender.start()
    done = 0
    while done < count:
        batch = claims.claim(residency.criteria([warm] if policy.warm and warm else [], own))
        if not batch:
            time.sleep(0.001)
            continue
        model = batch[0].job.parameters.model
        if model != warm:
            outcome.swaps += 1
            warm = model
            time.sleep(SWAP_SECONDS * scale)
        residency.enter(model)
        time.sleep(JOB_SECONDS * scale * (1 + EXTRA_IMAGE_SHARE * (len(batch) - 1)))
        for claim in batch:
            claims.finish(claim, JobState.COMPLETED, images=[])
            outcome.waits[model].append((queue.now() - claim.job.created_at) / scale)
        done += len(batch)
    outcome.makespan_seconds = (time.monotonic() - started) / scale
    sender.join()
    queue.close()
    return outcome


def _send(queue: JobQueue, count: int, pause_seconds: float) -> None:
    rng, due = random.Random(1), time.monotonic()
    for _ in range(count):
        model = "model-a" if rng.random() < 0.7 else "model-b"
        queue.submit(job().model_copy(update={"model": model, "batchable": True}))
        due += pause_seconds
        time.sleep(max(0.0, due - time.monotonic()))


def main() -> None:
    """Run both loads under each policy and print the tables."""
    parser = options(__doc__, runs=3)
    parser.add_argument("--scale", type=float, default=0.03, help="simulated seconds per second (%(default)s)")
    arguments = parser.parse_args()
    with report("affinity"), tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            for title, count, rate in (
                ("140 jobs at 6 a second", 140, 6.0),
                ("overload: 160 jobs at 11 a second", 160, 11.0),
            ):
                rows = []
                for policy in POLICIES:
                    runs = [run(server, policy, count, rate, arguments.scale) for _ in range(arguments.runs)]
                    rows.append(_row(policy, runs))
                print(f"{title}\n")
                print_table(["order", "swaps", "makespan s", "A p95 s", "B p95 s"], rows)
                print()
            print(f"median (range) of {arguments.runs} runs, {arguments.scale:g} of the time")
        finally:
            server.stop()


def _row(policy: Policy, runs: list[Outcome]) -> list[object]:
    waits = [
        spread([percentile(outcome.waits[model], 0.95) for outcome in runs]) for model in ("model-a", "model-b")
    ]
    swaps = spread([outcome.swaps for outcome in runs], 0)
    return [policy.name, swaps, spread([outcome.makespan_seconds for outcome in runs]), *waits]


if __name__ == "__main__":
    main()
