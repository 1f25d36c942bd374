"""Everything that one API process holds open, in one object.

A new service is one field of `Services` and one line in `_build`. Knows no route and no request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from fastapi.concurrency import run_in_threadpool

from app.auth import Authenticator, Principal
from app.events.attendance import PAUSE_SECONDS, Attendance
from app.events.notifier import JobNotifier
from app.inputs.codec.limits import Limits
from app.inputs.decoder import ImageDecoder
from app.inputs.fetcher import Fetcher
from app.limits.admission import Admission
from app.limits.disk_space import DiskSpace
from app.limits.list_rate import ListRate
from app.monitoring.prometheus import PrometheusCollector
from app.monitoring.readiness import Readiness
from app.parsing.bodies import FORM_OVERHEAD_BYTES
from app.parsing.byte_budget import ByteBudget
from app.parsing.file_checks import FileChecks
from app.periodic import repeating
from app.prompt_check import PromptGuard, open_prompt_check
from app.prompt_counter import PromptCounter
from app.settings import ApiSettings
from contracts.auth.api_keys import ApiKeyStore
from contracts.auth.caller_options import CallerOptions
from contracts.auth.key_requirement import KeyRequirement
from contracts.auth.signed_links import LinkSigner
from contracts.batches.batches import BatchStore
from contracts.batches.files import FileStore
from contracts.catalogue.catalogue import Catalogue
from contracts.hub_revisions import AgreedRows
from contracts.leases.claims import Claims
from contracts.leases.reaper import Reaper
from contracts.metrics import Counters, TotalsWriter
from contracts.outbound.signing import Secrets
from contracts.queue.attendance import AttendedJobs
from contracts.queue.client import JobQueue
from contracts.queue.idempotency import Idempotency
from contracts.queue.operations import Operations
from contracts.queue.retries import Retries
from contracts.queue.usage.files import write_usage_files
from contracts.requests.catalogue_reload import RELOAD_SECONDS, CatalogueReload
from contracts.storage import Storage, open_storage
from contracts.tracing.tracing import Tracing
from contracts.uploads.adapters import UploadRegistry
from contracts.uploads.orphans import OrphanSweep
from contracts.uploads.owner_bytes import OwnerBytes
from contracts.uploads.retention import Retention, remove_images

#: Interval between listings of the whole storage.
_ORPHAN_SECONDS = 3600.0
#: Interval at which a process without requests looks whether there are keys, to mark that in the storage.
_KEYS_SECONDS = 1.0
#: Interval between recounts of one owner's bytes each.
_RECOUNT_SECONDS = 60.0


@dataclass(frozen=True)
class Services:
    """The open services of one API process.

    Attributes:
        catalogue: the operator's file, without uploaded adapters.
        body_memory, spool_space: for bodies in memory, and on the disk.
        list_rate: None where lists are not limited.
        fetcher: None where the operator does not allow requests to name images by URL.
    """

    settings: ApiSettings
    catalogue: Catalogue
    queue: JobQueue
    storage: Storage
    disk_space: DiskSpace
    readiness: Readiness
    notifier: JobNotifier
    authenticator: Authenticator
    list_rate: ListRate | None
    api_keys: ApiKeyStore
    key_requirement: KeyRequirement
    caller_options: CallerOptions
    link_signer: LinkSigner
    admission: Admission
    idempotency: Idempotency
    retries: Retries
    attendance: Attendance
    decoder: ImageDecoder
    fetcher: Fetcher | None
    adapters: UploadRegistry
    files: FileStore
    batches: BatchStore
    retention: Retention
    owner_bytes: OwnerBytes
    webhook_secrets: Secrets
    totals: TotalsWriter
    prometheus: PrometheusCollector
    body_memory: ByteBudget
    spool_space: ByteBudget
    file_checks: FileChecks
    prompt_counter: PromptCounter
    prompt_guard: PromptGuard | None
    agreed_rows: AgreedRows
    operations: Operations
    catalogue_reload: CatalogueReload
    tracing: Tracing

    def reload_catalogue(self) -> None:
        """Take over what has changed in the catalogue's file."""
        self.catalogue_reload.refresh_and_log()


@asynccontextmanager
async def open_services(
    settings: ApiSettings, catalogue: Catalogue, counters: Counters, tracing: Tracing, shared: ImageDecoder | None
) -> AsyncIterator[Services]:
    """Open all services, and do their periodic work while the block runs. Redis may be away.

    Args:
        shared: a decoder that the caller closes; None: one that is opened and closed here.
    """
    services = _build(settings, catalogue, counters, tracing, shared or open_decoder(settings))
    redis, storage, retention = services.queue.connection, services.storage, services.retention
    orphans = OrphanSweep(redis, storage, settings.orphan_seconds)
    claims = Claims(redis, settings.queue, "api", settings.shared.result_ttl_seconds)
    reaper = Reaper(claims, partial(remove_images, storage))
    async with (
        repeating(reaper.reap, claims.lease_seconds / 3),
        repeating(retention.sweep, settings.sweep_seconds),
        repeating(services.key_requirement.refresh, _KEYS_SECONDS),
        repeating(services.link_signer.share, settings.sweep_seconds),
        repeating(services.attendance.keep, PAUSE_SECONDS),
        repeating(services.owner_bytes.recount_next, _RECOUNT_SECONDS),
        repeating(partial(write_usage_files, redis, storage), _ORPHAN_SECONDS),
        repeating(orphans.sweep, min(_ORPHAN_SECONDS, settings.orphan_seconds)),
        repeating(services.reload_catalogue, RELOAD_SECONDS),
        repeating(services.totals.flush, settings.flush_seconds, last=True),
        services.notifier.connected(settings.shared.redis_url),
    ):
        yield services
    if shared is None:
        await run_in_threadpool(services.decoder.close)
    await run_in_threadpool(services.queue.close)


def _build(
    settings: ApiSettings, catalogue: Catalogue, counters: Counters, tracing: Tracing, decoder: ImageDecoder
) -> Services:
    """Every service, before any of its periodic work."""
    queue, storage = JobQueue(settings.shared), open_storage(settings.shared)
    redis = queue.connection
    api_keys = ApiKeyStore(redis)
    key_requirement = KeyRequirement(api_keys, storage, always=settings.require_keys)
    retention = Retention(redis, storage, settings.shared.gone_seconds)
    agreed_rows = AgreedRows(redis)
    disk_space = DiskSpace(storage, settings.reserve_bytes)
    return Services(
        settings=settings,
        catalogue=catalogue,
        queue=queue,
        storage=storage,
        disk_space=disk_space,
        readiness=Readiness(redis, storage, disk_space, queue.replicas, catalogue.default_model),
        notifier=JobNotifier(),
        authenticator=Authenticator(api_keys, key_requirement, _anonymous(settings)),
        list_rate=ListRate(settings.lists_per_minute) if settings.lists_per_minute else None,
        api_keys=api_keys,
        key_requirement=key_requirement,
        caller_options=CallerOptions(redis),
        link_signer=LinkSigner(redis, settings.shared, storage),
        admission=Admission(redis),
        idempotency=Idempotency(redis, settings.idempotency_lease_seconds),
        retries=Retries(redis),
        attendance=Attendance(
            AttendedJobs(redis, settings.shared.result_ttl_seconds), settings.disconnect_grace_seconds
        ),
        decoder=decoder,
        fetcher=_open_fetcher(settings),
        adapters=UploadRegistry(redis, storage, retention),
        files=FileStore(redis, storage, retention),
        batches=BatchStore(redis, storage, retention),
        retention=retention,
        owner_bytes=OwnerBytes(redis),
        webhook_secrets=Secrets(redis, settings.shared),
        totals=TotalsWriter(redis, counters),
        prometheus=PrometheusCollector(redis),
        body_memory=ByteBudget(settings.max_bodies_bytes, settings.max_body_bytes),
        spool_space=ByteBudget(settings.max_spooled_bytes, settings.max_weights_bytes + FORM_OVERHEAD_BYTES),
        file_checks=FileChecks(),
        prompt_counter=PromptCounter(catalogue, agreed_rows),
        prompt_guard=open_prompt_check(settings),
        agreed_rows=agreed_rows,
        operations=Operations(queue, settings.shared.result_ttl_seconds),
        catalogue_reload=CatalogueReload(settings.shared.catalogue, catalogue),
        tracing=tracing,
    )


def open_decoder(settings: ApiSettings) -> ImageDecoder:
    """The decoder of images with the limits of these settings; the caller closes it."""
    limits = Limits(
        max_bytes=settings.max_image_bytes,
        max_side=settings.max_image_side,
        max_pixels=settings.max_image_pixels,
        max_decoded_bytes=settings.max_decoded_image_bytes,
    )
    return ImageDecoder(
        limits,
        processes=settings.decoder_processes,
        max_waiting=settings.decoder_queue,
        timeout_seconds=settings.decoder_timeout_seconds,
    )


def _anonymous(settings: ApiSettings) -> Principal | None:
    """Everybody, with the limits on callers without an API key; None where such callers are refused."""
    if not settings.serves_everybody:
        return None
    return Principal(
        calls_per_minute=settings.anonymous_calls_per_minute or None,
        max_jobs=settings.anonymous_max_jobs or None,
    )


def _open_fetcher(settings: ApiSettings) -> Fetcher | None:
    if not settings.fetch_images:
        return None
    return Fetcher(
        settings.outbound,
        max_bytes=settings.max_image_bytes,
        timeout_seconds=settings.fetch_timeout_seconds,
        concurrency=settings.fetch_concurrency,
    )
