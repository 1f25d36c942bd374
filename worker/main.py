"""One worker process: reads the settings, builds the parts, runs the loop until a signal ends it."""

from __future__ import annotations

import gc
import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from contracts import logs
from contracts.catalogue.catalogue import Catalogue
from contracts.hub_revisions import Revisions
from contracts.leases.claims import Claims
from contracts.metrics import Counters
from contracts.processes.background import BackgroundThread
from contracts.processes.permissions import keep_private
from contracts.processes.start_errors import start_errors_in_one_line
from contracts.processes.watchdog import Watchdog
from contracts.provenance.opening import open_credentials, open_receipt_signer
from contracts.redis.access import check_access
from contracts.redis.connection import connect
from contracts.requests.catalogue_reload import RELOAD_SECONDS, CatalogueReload
from contracts.requests.model_defaults import read_checked_catalogue
from contracts.settings import LogSettings, QueueSettings, SharedSettings
from contracts.storage import Storage, open_storage
from contracts.tracing.opening import open_tracing
from contracts.variables import warn_about_unknown_variables
from worker.runtime.host_environment import let_others_go_first, set_library_options
from worker.settings import WorkerSettings

if TYPE_CHECKING:
    from worker.pool.pool import Pool

#: Interval between two questions for the sizes of files on a hub that does not answer.
_SIZES_SECONDS = 60.0
#: Of a Redis command; a claim takes a millisecond.
_TIMEOUT_SECONDS = 5.0
#: After which another thread must give the interpreter back.
_SWITCH_SECONDS = 0.001


def main() -> int:
    """Run a worker; returns the exit status."""
    with start_errors_in_one_line("darkroom worker"):
        logs.configure(LogSettings())
        warn_about_unknown_variables(os.environ)
        shared, queue, settings = SharedSettings(), QueueSettings(), WorkerSettings()
        set_library_options(settings.device)
        let_others_go_first(settings.device)
        return _run(shared, queue, settings)


def _run(shared: SharedSettings, queue: QueueSettings, settings: WorkerSettings) -> int:
    watchdog = Watchdog(shared.hang_seconds)
    tracing = open_tracing(shared, "darkroom-worker", settings.name)
    check_access(shared.redis_url)
    keep_private(shared.data, from_group=False)
    # Imported here: torch and diffusers take seconds, and invalid settings should be reported before that.
    import torch

    from worker.loop.consumer import Consumer
    from worker.loop.preparation.catalogue_news import follow_catalogue
    from worker.loop.resources import WorkerResources
    from worker.runtime.device import claim_device, pick_device
    from worker.runtime.kernels import prefer
    from worker.runtime.out_of_memory import DeviceFailed
    from worker.runtime.warnings import silence_known_warnings
    from worker.safety.opening import open_safety

    # Modules stay in memory. Otherwise each full collection walks through them and delays a job by 0.3 s.
    gc.freeze()
    # Jobs are generated in this thread, which lets go of the interpreter at each operation of torch: another one
    # that has taken it meanwhile must give it back soon, not after the usual 5 ms.
    sys.setswitchinterval(_SWITCH_SECONDS)
    silence_known_warnings()
    logs.adopt("diffusers", "transformers")
    if settings.cpu_threads:
        torch.set_num_threads(settings.cpu_threads)
    catalogue, storage, counters = read_checked_catalogue(shared.catalogue), open_storage(shared), Counters()
    # Open for as long as the process lives: no other worker may plan with this card's memory.
    card = claim_device(pick_device(settings.device), shared=settings.budget_bytes is not None)
    # No retries: a claim that ran must not run again if its answer was lost.
    connection = connect(shared.redis_url, timeout_seconds=_TIMEOUT_SECONDS, retries=0)
    reload = CatalogueReload(shared.catalogue, catalogue, keeps_removed=True)
    pool = _build_pool(shared, settings, catalogue, storage, counters, Revisions(connection), reload)
    rq_connection = connect(shared.redis_url, timeout_seconds=_TIMEOUT_SECONDS, retries=1, decode=False)
    claims = Claims(connection, queue, settings.name, shared.result_ttl_seconds)
    credentials = open_credentials(shared, storage, connection)
    safety = open_safety(settings, pool.fetcher.locate)
    signer = open_receipt_signer(shared, storage, connection)
    resources = WorkerResources(
        rq_connection, claims, pool, storage, settings, counters, credentials, signer, safety, tracing
    )
    consumer = Consumer(resources)
    watchdog.watch(lambda: consumer.find_fault(shared.hang_seconds))
    BackgroundThread("hub-sizes").submit(partial(_learn_sizes, pool))
    follow = partial(follow_catalogue, reload, pool.fetcher, claims.waiting_jobs())
    BackgroundThread("catalogue").repeat(follow, RELOAD_SECONDS)
    try:
        with prefer(settings.attention):
            consumer.start(settings.warm or [catalogue.default_model])
    except DeviceFailed as error:
        print(f"darkroom worker: {pool.device} failed, so this process ends: {error}", file=sys.stderr)  # noqa: T201
        return 1
    finally:
        tracing.close()
        if card is not None:
            card.close()
    return 0


def _learn_sizes(pool: Pool) -> None:
    """Have plans know the sizes of what is still on hubs, as soon as these answer."""
    while not pool.fetcher.measure_missing():
        time.sleep(_SIZES_SECONDS)


def _build_pool(
    shared: SharedSettings,
    settings: WorkerSettings,
    catalogue: Catalogue,
    storage: Storage,
    counters: Counters,
    revisions: Revisions,
    reload: CatalogueReload,
) -> Pool:
    from worker.adapters.files import Limits, LoraFiles
    from worker.checkpoints.places import Places
    from worker.pool.pool import Pool
    from worker.runtime.device import pick_device

    folder = settings.lora_folder or shared.data / "loras"
    limits = Limits(settings.loaded_loras, settings.loaded_lora_bytes, settings.lora_file_bytes)
    places = Places(catalogue, revisions, without_t5=settings.t5 == "off", reload=reload.refresh_and_log)
    return Pool(
        catalogue,
        device=settings.device,
        max_models=settings.max_models,
        embedding_bytes=settings.embedding_bytes,
        lora_files=LoraFiles(catalogue, storage, folder, limits, counters, places),
        budget_bytes=settings.budget_bytes,
        host_bytes=settings.host_bytes,
        policy=settings.policy,
        kernels=settings.kernels,
        counters=counters,
        encodes_ahead=settings.encodes_ahead(pick_device(settings.device).type),
    )
