"""The check of images: what is stored, shown and told of images that are flagged."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from app.main import create_app
from app.settings import ApiSettings
from contracts.catalogue.catalogue import Catalogue
from contracts.jobs.events import read_events
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.jobs.receipt import Receipt, Weights
from contracts.jobs.records import JobState
from contracts.provenance.kept_latents import latents_key
from contracts.queue.client import JobQueue
from contracts.safety import flagged_key
from contracts.settings import BUILT_IN_CATALOGUE, SharedSettings
from contracts.storage import Storage
from tests.support.jobs import decode_pixels, make_job
from tests.support.workers import make_consumer, only, work_until_ended
from worker.generation.results.outputs import JobResult, store
from worker.pool.pool import Pool
from worker.safety.stage import Action, SafetyStage

NO_STARS = BUILT_IN_CATALOGUE.parent / "safety" / "no-stars"
BRIGHT, DARK = Image.new("RGB", (80, 40), "white"), Image.new("RGB", (80, 40), "black")


class Brightness:
    """A check that flags bright images, and breaks at others than its size."""

    def score(self, image: Image.Image, model: str) -> float | None:
        if model != "shapes-sdxl":
            return None
        if image.size != (80, 40):
            raise ValueError("/srv/models/secret")
        return float(np.asarray(image).mean()) / 255


def result(catalogue: Catalogue, *images: Image.Image, family: str = "sdxl") -> JobResult:
    job = make_job(catalogue, family, num_images=len(images))
    receipt = Receipt(parameters=job, seeds=job.seeds, model=Weights(id=job.model, sha256="0" * 64))
    return JobResult("generated", images=images, receipt=receipt)


def stage(action: Action) -> SafetyStage:
    return SafetyStage("brightness", Brightness(), 0.6, action)


def test_flagged_images_are_blurred_and_kept_as_they_were_for_operators(
    catalogue: Catalogue, storage: Storage
) -> None:
    striped = BRIGHT.copy()
    striped.paste(DARK.crop((0, 0, 4, 40)), (10, 0))
    done = stage("blur").apply(result(catalogue, DARK, striped), "id", storage)
    assert [(one.flagged, one.blurred) for one in done.safety if one] == [(False, False), (True, True)]
    assert done.images[0] is DARK
    assert done.images[1].size == striped.size
    assert np.asarray(done.images[1]).min() > 100  # the stripe is gone
    assert storage.find("images/") == [flagged_key("id", 1)]
    assert (decode_pixels(storage.read(flagged_key("id", 1))) == np.asarray(striped)).all()


def test_latents_are_kept_of_images_that_are_shown_alone(catalogue: Catalogue, storage: Storage) -> None:
    for image, keys in ((DARK, 1), (BRIGHT, 0)):
        made = replace(result(catalogue, image), latents=[torch.zeros(1, 4, 8, 8)])
        done = store(stage("blur").apply(made, f"{keys}", storage), f"{keys}", 1, storage)
        assert len([key for key in storage.find(f"images/{keys}/") if key == latents_key(f"{keys}", 1)]) == keys
        assert (done.receipt is not None and done.receipt.kept_latents is not None) is bool(keys)


def test_marked_images_are_stored_as_they_are(catalogue: Catalogue, storage: Storage) -> None:
    done = stage("mark").apply(result(catalogue, BRIGHT), "id", storage)
    assert done.images[0] is BRIGHT
    assert [(one.score, one.threshold, one.flagged, one.blurred) for one in done.safety if one] == [
        (1.0, 0.6, True, False)
    ]
    assert storage.find("images/") == []


def test_a_refused_job_says_which_image_and_a_check_that_fails_shows_nothing(
    catalogue: Catalogue, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(JobFailed, match=r"flagged image 1 \(score 1, threshold 0.6\)") as refused:
        stage("refuse").apply(result(catalogue, DARK, BRIGHT), "id", storage)
    assert refused.value.code is FailureCode.FLAGGED
    with (
        caplog.at_level(logging.CRITICAL),
        pytest.raises(JobFailed, match="safety check of images failed") as failed,
    ):
        stage("mark").apply(result(catalogue, DARK.resize((8, 8))), "id", storage)
    assert "secret" not in failed.value.message
    assert stage("blur").apply(result(catalogue, BRIGHT, family="flux"), "id", storage).safety == [None]


def test_previews_are_shown_only_where_the_image_would_be(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL):
        for action, shown in (("refuse", False), ("blur", False), ("mark", True)):
            may_show = stage(action).may_show("shapes-sdxl")  # type: ignore[arg-type]
            assert [may_show(image) for image in (BRIGHT, DARK)] == [shown, True]
        assert not stage("mark").may_show("shapes-sdxl")(DARK.resize((8, 8)))


def test_no_stars_through_queue_worker_and_http(
    settings: SharedSettings, queue: JobQueue, storage: Storage, shipped: Catalogue
) -> None:
    """A classifier of shapes: stars are blurred, circles are not, and operators see what was blurred."""
    prompts = ("a red star on a blue background", "a red circle on a blue background")
    ids = [
        queue.submit(make_job(shipped, "sdxl", prompt=prompt, num_inference_steps=6, previews=2)).id
        for prompt in prompts
    ]
    consumer = make_consumer(
        settings,
        Pool(only(shipped, "sdxl"), device="cpu"),
        storage,
        image_check="classifier",
        image_check_folder=NO_STARS,
        image_check_labels=["star"],
        image_check_action="blur",
    )
    work_until_ended(consumer, queue, *ids)
    with TestClient(create_app(ApiSettings(shared=settings, anonymous_calls_per_minute=0))) as client:
        jobs = [client.get(f"/v1/jobs/{id}").json() for id in ids]
        safety = [job["images"][0]["safety"] for job in jobs]
        assert [(found["flagged"], found["blurred"]) for found in safety] == [(True, True), (False, False)]
        assert safety[0]["score"] >= 0.5 == safety[0]["threshold"]
        shown = decode_pixels(client.get(jobs[0]["images"][0]["url"]).content)
        original = decode_pixels(client.get(f"/v1/admin/jobs/{ids[0]}/flagged/0").content)
        assert np.abs(shown - original).max() > 40
        assert client.get(f"/v1/admin/jobs/{ids[1]}/flagged/0").status_code == 404
        released = f"/v1/jobs/{ids[0]}/released/0"
        assert client.get(released).status_code == 404
        for _ in range(2):
            answer = client.post(f"/v1/admin/jobs/{ids[0]}/flagged/0/release")
            assert answer.status_code == 200, answer.text
        job = client.get(f"/v1/jobs/{ids[0]}").json()
        assert job["images"][0]["sha256"] == jobs[0]["images"][0]["sha256"]
        assert job["links"]["released/0"].endswith(released)
        assert (decode_pixels(client.get(released).content) == original).all()
        for missing in (f"{ids[1]}/flagged/0", f"{ids[0]}/flagged/1", "0/flagged/0"):
            assert client.post(f"/v1/admin/jobs/{missing}/release").status_code == 404
        kinds = [event.kind for event in read_events(queue.connection, ids[0])]
        assert kinds.count("preview") < 2
        assert client.delete(f"/v1/jobs/{ids[0]}").status_code in (200, 204)
        assert client.get(f"/v1/admin/jobs/{ids[0]}/flagged/0").status_code in (404, 410)
        assert storage.find(f"images/{ids[0]}/") == []
    assert all(job["status"] == JobState.COMPLETED for job in jobs)
