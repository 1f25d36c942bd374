"""One worker process: settings, warm-up, and the loop until a signal ends it."""

from __future__ import annotations

import gc
import logging
import os
import sys

from pydantic import ValidationError

from contracts import logs
from contracts.catalogue.catalogue import read_catalogue
from contracts.errors import DarkroomError
from contracts.metrics import Counters
from contracts.queue.leases import Claims
from contracts.redis.connection import connect
from contracts.settings import LogSettings, QueueSettings, SharedSettings, explain
from contracts.storage import open_storage
from worker.settings import WorkerSettings

_log = logging.getLogger("worker")

#: A claim takes a millisecond; a Redis that answers later than this is away.
_TIMEOUT_SECONDS = 5.0


def main() -> int:
    """Run a worker; returns the exit status."""
    # Read before torch is: results must not depend on which MKL kernel a machine would choose.
    os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")
    try:
        logs.configure(LogSettings())
        return _work(SharedSettings(), QueueSettings(), WorkerSettings())
    except DarkroomError as error:
        print(f"darkroom worker: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except ValidationError as error:
        print(f"darkroom worker: {explain(error)}", file=sys.stderr)  # noqa: T201
        return 1


def _work(shared: SharedSettings, queue: QueueSettings, own: WorkerSettings) -> int:
    # Imported here: torch and diffusers take seconds, and bad settings should be told before that.
    import torch

    from worker.adapters.files import Limits, LoraFiles
    from worker.loop.consumer import Consumer
    from worker.pool.pool import Pool
    from worker.runtime.device import pick_device
    from worker.runtime.kernels import prefer
    from worker.runtime.warnings import silence_known_warnings

    # What is imported stays. Without this each full collection walks through it, and holds a job up for 0.3 s.
    gc.freeze()
    silence_known_warnings()
    logs.adopt("diffusers", "transformers")
    if own.cpu_threads:
        torch.set_num_threads(own.cpu_threads)
    catalogue, tally = read_catalogue(shared.catalogue), Counters()
    storage, folder = open_storage(shared), own.lora_folder or shared.data / "loras"
    bounds = Limits(own.loaded_loras, own.loaded_lora_bytes, own.lora_file_bytes)
    pool = Pool(
        catalogue,
        device=own.device,
        max_models=own.max_models,
        embedding_bytes=own.embedding_bytes,
        lora_files=LoraFiles(catalogue, storage, folder, bounds, tally),
        budget_bytes=own.budget_bytes,
        host_bytes=own.host_bytes,
        policy=own.policy,
        kernels=own.kernels,
        tally=tally,
        encodes_ahead=own.encodes_ahead(pick_device(own.device).type),
    )
    # A claim that ran and whose answer was lost must not run again: no retries.
    connection = connect(shared.redis_url, timeout_seconds=_TIMEOUT_SECONDS, retries=0)
    claims = Claims(connection, queue, own.name, shared.result_ttl_seconds)
    rq_connection = connect(shared.redis_url, timeout_seconds=_TIMEOUT_SECONDS, retries=1, decode=False)
    model_pixels = pool.plan_selector.batch_pixels()
    consumer = Consumer(
        rq_connection, claims, pool, storage, own, model_pixels, tally, pool.plan_selector.capacity
    )
    with prefer(own.attention):
        consumer.start(own.warm or [catalogue.default_model])
    return 0
