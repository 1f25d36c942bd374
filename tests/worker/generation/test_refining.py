"""A job of two stages: one progress, one receipt, one plan at a time, and nothing left of the first model."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.main import create_app
from app.settings import ApiSettings
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.queue.client import JobQueue
from contracts.requests.any_parameters import require_diffusion
from contracts.requests.model_defaults import read_checked_catalogue
from contracts.requests.parameters import JobParameters
from contracts.settings import SharedSettings
from contracts.storage import Storage, open_storage
from tests.support.jobs import (
    JobStopped,
    RecordingWatch,
    complete_job,
    fail_job,
    generate_pixels,
    make_job,
    run_jobs,
)
from tests.support.refiner import REFINER, write_refiner
from worker.pool.pool import PLANNED_SHARE, Pool


def _job(catalogue: Catalogue, mode: Mode = Mode.TXT2IMG, **fields: Any) -> JobParameters:
    given: dict[str, Any] = {"refiner": {"model": REFINER, "switch_at": 0.6}, "num_inference_steps": 5, **fields}
    return make_job(catalogue, "sdxl", mode, **given)


def test_the_steps_of_both_stages_are_one_progress(
    refined: Catalogue, refined_pool: Pool, storage: Storage
) -> None:
    watch = RecordingWatch()

    complete_job(_job(refined, previews=4), refined_pool, storage, watch)

    assert watch.seen == [(step, 5) for step in range(1, 6)]
    # Of steps of the first model, and of the refiner's.
    assert [(preview.step, preview.steps) for _, preview in watch.previews] == [(1, 5), (2, 5), (3, 5), (4, 5)]


def test_the_receipt_names_both_models_and_where_they_were(
    refined: Catalogue, refined_pool: Pool, storage: Storage
) -> None:
    _, receipt = complete_job(_job(refined), refined_pool, storage)

    assert receipt.refiner is not None
    assert (receipt.model.id, receipt.refiner.id) == ("shapes-sdxl", REFINER)
    assert receipt.model.sha256 != receipt.refiner.sha256
    assert receipt.placement["unet"] == receipt.placement["refiner:unet"] == "cpu"
    assert "refiner:text_encoder" not in receipt.placement
    assert receipt.embeddings.hits + receipt.embeddings.misses == 3  # the refiner has no zeros for no prompt


@pytest.mark.parametrize("step", [2, 4])
def test_a_job_that_is_stopped_in_either_stage_leaves_nothing(
    step: int, refined: Catalogue, refined_pool: Pool, storage: Storage
) -> None:
    job = _job(refined)
    before = generate_pixels(job, refined_pool, storage)
    watch = RecordingWatch(stop_after=step, error=JobStopped())

    with pytest.raises(JobStopped):
        run_jobs(job, refined_pool, storage, watch)

    assert watch.seen[-1] == (step, 5)
    assert refined_pool.must_wait(make_job(refined, "flux")) is False  # no model is in use
    assert np.array_equal(generate_pixels(job, refined_pool, storage), before)


def test_a_refined_job_is_the_same_in_company_and_where_only_one_model_fits(
    refined: Catalogue, refined_pool: Pool, storage: Storage
) -> None:
    jobs = [
        _job(refined, num_inference_steps=3),
        make_job(refined, "sdxl", num_inference_steps=2),
        _job(refined, Mode.IMG2IMG, num_inference_steps=4, seed=8, strength=0.9),
    ]
    alone = [generate_pixels(job, refined_pool, storage) for job in jobs]
    capacity = refined_pool.plan_selector.capacity
    plans = [plan for job in jobs if (plan := capacity.plan("sdxl", job)) is not None]
    largest = max(plan.peak_bytes for plan in plans)
    narrow = Pool(refined, device="cpu", budget_bytes=int(largest / PLANNED_SHARE) + 1, max_models=1)

    results = run_jobs(jobs, narrow, storage)

    images = [Image.open(io.BytesIO(storage.read(result.stored[0].key))) for result in results]
    assert all(np.array_equal(np.asarray(image), pixels) for image, pixels in zip(images, alone, strict=True))
    assert len(narrow.warm) == 1


def test_a_stage_that_the_scheduler_gives_no_step_fails_with_a_remedy(
    refined: Catalogue, refined_pool: Pool, storage: Storage
) -> None:
    # Karras' sigmas hurry through the first part of the schedule.
    job = _job(refined, Mode.IMG2IMG, scheduler="dpmpp_2m_karras", strength=0.5, num_inference_steps=10)

    error = fail_job(job, refined_pool, storage)

    assert "scheduler dpmpp_2m_karras leaves shapes-sdxl no step to run" in error.message
    assert "raise refiner.switch_at, strength or num_inference_steps" in error.message


def test_a_posted_job_whose_refiner_is_named_by_an_alias_is_generated_by_both(
    settings: SharedSettings, queue: JobQueue, tmp_path: Path
) -> None:
    catalogue = tmp_path / "catalogue.toml"
    base = Path("models/shapes-sdxl").resolve()
    source = write_refiner(base, tmp_path / "refiner")
    catalogue.write_text(
        f'default_model = "base"\n[[models]]\nid = "base"\nfamily = "sdxl"\nsource = "{base}"\n'
        f'[[models]]\nid = "refiner"\naliases = ["sd_xl_refiner_1.0"]\nfamily = "sdxl"\nsource = "{source}"\n'
    )
    shared = settings.model_copy(update={"catalogue": catalogue})
    body: dict[str, Any] = {
        "prompt": "a red circle",
        "seed": 7,
        "width": 64,
        "height": 64,
        "num_inference_steps": 5,
    }
    with TestClient(create_app(ApiSettings(shared=shared))) as client:
        models = client.get("/v1/models").json()["data"]
        schemas = client.get("/v1/models/base").json()["schemas"]
        job = client.post("/v1/txt2img", json={**body, "refiner": {"model": "sd_xl_refiner_1.0"}}).json()
        alone = client.post("/v1/txt2img", json={**body, "model": "refiner"}).json()
    parameters = queue.fetch(job["id"]).parameters

    assert {model["id"]: (model["tasks"], model["refiners"]) for model in models} == {
        "base": (["txt2img", "img2img", "inpaint", "controlnet"], ["refiner"]),
        "refiner": (["img2img", "inpaint"], []),
    }
    assert schemas["txt2img"]["$defs"]["Refiner"]["properties"]["model"]["enum"] == ["refiner"]
    assert parameters.needs == ["base", "refiner"]
    assert "does not support txt2img" in alone["errors"][0]["message"]
    pool = Pool(read_checked_catalogue(catalogue), device="cpu")
    _, receipt = complete_job(require_diffusion(parameters), pool, open_storage(shared))
    assert receipt.refiner is not None
    assert receipt.refiner.id == "refiner"
