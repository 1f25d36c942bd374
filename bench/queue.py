"""What a claim costs inside Redis, at three depths of the queue: `python -m bench.queue`.

By Redis' own slow log, so that neither the client nor the network counts. Runs a redis-server of its own.
"""

from __future__ import annotations

import statistics
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from redis import Redis

from bench.report import options, print_table, report, spread
from cli.supervisor.redis_server import RedisServer
from contracts.catalogue.families import Mode, Task
from contracts.leases.claims import Claims
from contracts.leases.criteria import ClaimCriteria
from contracts.queue.client import JobQueue
from contracts.redis.keys import RQ_QUEUE, lua_table
from contracts.requests.parameters import JobParameters
from contracts.settings import QueueSettings, SharedSettings

_CRITERIA = ClaimCriteria()
#: Claims of one run; each is timed.
_CLAIMS = 8
_JOB = JobParameters(
    task=Task.TXT2IMG, mode=Mode.TXT2IMG, model="shapes-sdxl", prompt="a red circle", width=64, height=64,
    num_images=1, num_inference_steps=12, guidance_scale=3.0, seed=0, batchable=False, scheduler="euler",
    output_format="png", output_quality=95,
)  # fmt: skip
_COPY = f"""{lua_table()}
local fields = redis.call('HGETALL', KEY.job .. ARGV[1])
local rq = redis.call('HGETALL', KEY.rq_job .. ARGV[1])
for number = tonumber(ARGV[2]), tonumber(ARGV[3]) do
  local id = ARGV[1] .. number
  redis.call('HSET', KEY.job .. id, unpack(fields))
  redis.call('HSET', KEY.job .. id, 'id', id)
  redis.call('HSET', KEY.rq_job .. id, unpack(rq))
  redis.call('RPUSH', ARGV[4], id)
end"""


def add_jobs(queue: JobQueue, count: int) -> None:
    """Add waiting jobs: one real submission, copied inside Redis to be quick."""
    record = queue.submit(_JOB)
    for start in range(1, count, 1000):
        end = min(count - 1, start + 999)
        queue.connection.eval(_COPY, 0, record.id, start, end, RQ_QUEUE + record.queue)


def claim_costs(url: str, depth: int, runs: int) -> list[float]:
    """Median milliseconds of the script alone, by Redis' slow log, of each run; the depth stays the same."""
    with Redis.from_url(url, decode_responses=True) as connection:
        connection.flushall()
        with closing(JobQueue(SharedSettings(redis_url=url))) as queue:
            add_jobs(queue, depth)
            claims = Claims(connection, QueueSettings(), "bench", ttl_seconds=60)
            claims.claim(_CRITERIA)
            add_jobs(queue, 1)
            costs = []
            for _ in range(runs):
                connection.config_set("slowlog-log-slower-than", 0)
                connection.slowlog_reset()
                for _ in range(_CLAIMS):
                    claims.claim(_CRITERIA)
                entries: Any = connection.slowlog_get(64)
                connection.config_set("slowlog-log-slower-than", -1)
                micros = [entry["duration"] for entry in entries if "EVALSHA" in str(entry["command"])[:10]]
                costs.append(statistics.median_high(micros) / 1000)
                add_jobs(queue, _CLAIMS)
    return costs


def main() -> None:
    """Measure and print the table."""
    arguments = options(__doc__, runs=3).parse_args()
    with report("queue"), tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            costs = {depth: claim_costs(server.url, depth, arguments.runs) for depth in (10, 1_000, 100_000)}
        finally:
            server.stop()
        rows = [[f"{depth:,}", spread(found, 3)] for depth, found in costs.items()]
        print_table("waiting jobs | ms of one claim inside Redis", rows)
        print(f"\nmedian (range) of {arguments.runs} runs")


if __name__ == "__main__":
    main()
