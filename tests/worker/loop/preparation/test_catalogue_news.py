"""Rows that are added to a worker's catalogue, and removed, while it runs."""

from __future__ import annotations

from pathlib import Path

from contracts.jobs.records import JobState
from contracts.queue.client import JobQueue
from contracts.requests.catalogue_reload import CatalogueReload
from contracts.requests.model_defaults import read_checked_catalogue
from contracts.settings import BUILT_IN_CATALOGUE
from tests.support.parameters import parameters
from tests.support.scripted_worker import ScriptedWorker
from worker.checkpoints.places import Places, Unwatched
from worker.loop.preparation.catalogue_news import follow_catalogue
from worker.pool.pool import Pool

ROW = '[[models]]\nid = "{id}"\nfamily = "{family}"\nsource = "{source}/shapes-{family}"\n'


def write(path: Path, **families: str) -> None:
    rows = (ROW.format(id=id, family=family, source=BUILT_IN_CATALOGUE.parent) for id, family in families.items())
    path.write_text('default_model = "one"\n' + "".join(rows), encoding="utf-8")


def test_plans_know_an_added_row_and_jobs_that_wait_for_a_removed_one_end(
    tmp_path: Path, queue: JobQueue, worker: ScriptedWorker
) -> None:
    path = tmp_path / "catalogue.toml"
    write(path, one="sdxl")
    catalogue = read_checked_catalogue(path)
    reload = CatalogueReload(path, catalogue, keeps_removed=True)
    pool, waiting = Pool(catalogue, device="cpu"), worker.claims.waiting_jobs()
    write(path, one="sdxl", two="flux")
    follow_catalogue(reload, pool.fetcher, waiting)
    assert pool.plan_selector.capacity.models.keys() == {"one", "two"}
    pool.prepare("two")

    ids = [queue.submit(parameters(model=model)).id for model in ("one", "two")]
    write(path, one="sdxl")
    follow_catalogue(reload, pool.fetcher, waiting)

    jobs = [queue.fetch(id) for id in ids]
    assert [job.state for job in jobs] == [JobState.QUEUED, JobState.FAILED]
    assert jobs[1].error is not None
    assert jobs[1].error.message == "two was removed from the catalogue while the job was waiting; use another one"
    assert not reload.news


def test_a_job_of_a_row_that_the_worker_has_not_seen_yet_finds_it(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.toml"
    write(path, one="sdxl")
    catalogue = read_checked_catalogue(path)
    reload = CatalogueReload(path, catalogue, keeps_removed=True)
    places = Places(catalogue, reload=reload.refresh_and_log)
    write(path, one="sdxl", two="flux")  # and the API has accepted a job of it already
    assert places.fetch("two", Unwatched()) == BUILT_IN_CATALOGUE.parent / "shapes-flux"
