"""What a claim costs inside Redis, at three depths of the queue: `python -m bench.queue`.

By Redis' own slow log, so that neither the client nor the network counts. Runs a redis-server of its own.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import cast

from redis import Redis

from bench.report import options, report
from bench.table import print_table, spread
from cli.supervisor.redis_server import RedisServer
from contracts.catalogue.families import Mode, Task
from contracts.queue.client import JobQueue
from contracts.queue.leases import ClaimCriteria, Claims
from contracts.redis.keys import RQ_QUEUE, lua_table
from contracts.requests.parameters import JobParameters
from contracts.settings import QueueSettings, SharedSettings

_CRITERIA = ClaimCriteria(max_images=1)
#: In one run, of those that are timed one by one.
_CLAIMS = 8


def job() -> JobParameters:
    """Parameters of a small job."""
    return JobParameters(
        task=Task.TXT2IMG, mode=Mode.TXT2IMG, model="shapes-sdxl", prompt="a red circle", width=64, height=64,
        num_images=1, num_inference_steps=12, guidance_scale=3.0, seed=0, batchable=False, scheduler="euler",
        output_format="png", output_quality=95,
    )  # fmt: skip


def fill(queue: JobQueue, depth: int) -> None:
    """Bring the queue to a depth: one real submission, copied inside Redis to be quick."""
    record = queue.submit(job())
    copy = (
        f"{lua_table()}\n"
        "local fields = redis.call('HGETALL', KEY.job .. ARGV[1])\n"
        "local rq = redis.call('HGETALL', KEY.rq_job .. ARGV[1])\n"
        "for number = tonumber(ARGV[2]), tonumber(ARGV[3]) do\n"
        "  local id = ARGV[1] .. number\n"
        "  redis.call('HSET', KEY.job .. id, unpack(fields))\n"
        "  redis.call('HSET', KEY.job .. id, 'id', id)\n"
        "  redis.call('HSET', KEY.rq_job .. id, unpack(rq))\n"
        "  redis.call('RPUSH', ARGV[4], id)\n"
        "end"
    )
    for start in range(1, depth, 1000):
        end = min(depth - 1, start + 999)
        queue.connection.eval(copy, 0, record.id, start, end, RQ_QUEUE + record.queue)


def claim_costs(server: RedisServer, depth: int, runs: int) -> list[float]:
    """Median milliseconds of the script alone, by Redis' own slow log, of each run, at a depth that is kept."""
    with Redis.from_url(server.url, decode_responses=True) as connection:
        connection.flushall()
        queue = JobQueue(SharedSettings(redis_url=server.url))
        fill(queue, depth)
        claims = Claims(connection, QueueSettings(), "one", ttl_seconds=60)
        claims.claim(_CRITERIA)
        fill(queue, 1)
        costs = []
        for _ in range(runs):
            costs.append(_claim_cost(connection, claims))
            fill(queue, _CLAIMS)
        queue.close()
    return costs


def _claim_cost(connection: Redis, claims: Claims) -> float:
    connection.config_set("slowlog-log-slower-than", 0)
    connection.slowlog_reset()
    for _ in range(_CLAIMS):
        claims.claim(_CRITERIA)
    entries = cast("list[dict[str, object]]", connection.slowlog_get(64))
    connection.config_set("slowlog-log-slower-than", -1)
    micros = sorted(
        cast("int", entry["duration"])
        for entry in entries
        if str(entry["command"]).startswith(("EVALSHA", "b'EVALSHA"))
    )
    return micros[len(micros) // 2] / 1000


def main() -> None:
    """Measure and print both tables."""
    arguments = options(__doc__, runs=3).parse_args()
    with report("queue"), tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            costs = {depth: claim_costs(server, depth, arguments.runs) for depth in (10, 1_000, 100_000)}
            rows = [[f"{depth:,}", spread(found, 3)] for depth, found in costs.items()]
            print_table(["waiting jobs", "ms of one claim inside Redis"], rows)
            print(f"\nmedian (range) of {arguments.runs} runs")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
