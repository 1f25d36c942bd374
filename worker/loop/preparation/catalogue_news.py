"""A worker's response to rows that are added to its catalogue's file, or removed, while it runs."""

from __future__ import annotations

from contracts.jobs.failures import FailureCode
from contracts.jobs.records import JobError
from contracts.leases.waiting_jobs import WaitingJobs
from contracts.requests.catalogue_reload import CatalogueReload
from worker.pool.loading.fetcher import ModelFetcher


def follow_catalogue(reload: CatalogueReload, fetcher: ModelFetcher, waiting_jobs: WaitingJobs) -> None:
    """Have plans know rows that were added, and end jobs that wait for removed ones; those that run go on.

    Raises:
        RedisError: Redis does not answer; the next call goes on from there.
    """
    reload.refresh_and_log()
    while reload.news:
        changes = reload.news[0]
        fetcher.measure_added(changes.added)
        for name in changes.removed:
            message = f"{name} was removed from the catalogue while the job was waiting; use another one"
            waiting_jobs.fail(name, JobError.of(FailureCode.MODEL_LOAD_FAILED, message))
        reload.news.popleft()
