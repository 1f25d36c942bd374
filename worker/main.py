"""One worker process: settings, warm-up, and the loop until a signal ends it."""

from __future__ import annotations

import logging
import os
import sys

from redis import Redis

from contracts.catalogue import read_catalogue
from contracts.claims import Claims
from contracts.errors import DarkroomError
from contracts.settings import QueueSettings, SharedSettings
from contracts.storage import open_storage
from worker.settings import WorkerSettings

_log = logging.getLogger("worker")

#: A Redis that hangs must not hang the worker; a claim takes a millisecond.
_TIMEOUTS = {"socket_connect_timeout": 5.0, "socket_timeout": 10.0}


def main() -> int:
    """Run a worker; returns the exit status."""
    # Read before torch is: results must not depend on which MKL kernel a machine would choose.
    os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        return _work(SharedSettings(), QueueSettings(), WorkerSettings())
    except DarkroomError as error:
        print(f"darkroom worker: {error}", file=sys.stderr)  # noqa: T201
        return 1


def _work(shared: SharedSettings, queue: QueueSettings, own: WorkerSettings) -> int:
    # Imported here: torch and diffusers take seconds, and bad settings should be told before that.
    import torch

    from worker.consumer import Consumer
    from worker.pipelines import Pool
    from worker.warnings import silence_known_warnings

    silence_known_warnings()
    if own.cpu_threads:
        torch.set_num_threads(own.cpu_threads)
    catalogue = read_catalogue(shared.catalogue)
    pool = Pool(catalogue, device=own.device, max_models=own.max_models)
    connection = Redis.from_url(shared.redis_url, decode_responses=True, **_TIMEOUTS)
    claims = Claims(connection, queue, own.name, shared.result_ttl_seconds)
    consumer = Consumer(Redis.from_url(shared.redis_url, **_TIMEOUTS), claims, pool, open_storage(shared), own)
    consumer.start(own.warm or [catalogue.default_model])
    return 0
