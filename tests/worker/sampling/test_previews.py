"""Previews resemble the final image, come at the requested steps, and do not change the image."""

from __future__ import annotations

import base64
import io
import threading
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import FAMILIES, Mode
from contracts.jobs.events import Preview
from contracts.leases.claims import Claims
from contracts.queue.client import JobQueue
from contracts.settings import QueueSettings
from contracts.storage import Storage
from tests.support.claims import take
from tests.support.combinations import ALL, covering
from tests.support.jobs import (
    JobStopped,
    Pixels,
    RecordingWatch,
    complete_job,
    decode_pixels,
    make_job,
    model_of,
    run_jobs,
)
from tests.support.parameters import parameters
from tests.support.trained import TRAINED_FAMILIES
from worker.loop.progress import JobWatch, ProgressReporter
from worker.pool.pool import Pool
from worker.sampling import previews
from worker.sampling.schedulers import make_scheduler


def decode_preview(preview: Preview) -> Image.Image:
    head, _, data = preview.url.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def likeness(preview: Preview, final: Pixels) -> float:
    """Correlation of a preview with the final image, both as coarse as the latents (8 pixels a side)."""
    coarse = (final.shape[1] // 8, final.shape[0] // 8)
    seen = np.asarray(decode_preview(preview).resize(coarse, Image.Resampling.BOX), dtype=float)
    made = Image.fromarray(final.astype("uint8")).resize(coarse, Image.Resampling.BOX)
    return float(np.corrcoef(seen.ravel(), np.asarray(made, dtype=float).ravel())[0, 1])


@pytest.mark.parametrize(
    ("count", "steps", "due"),
    [(0, 12, []), (1, 12, [6]), (3, 12, [3, 6, 9]), (10, 4, [1, 2, 3]), (2, 1, []), (10, 200, range(18, 183, 18))],
)
def test_previews_are_spread_evenly_and_none_follows_the_last_step(count: int, steps: int, due: list[int]) -> None:
    found = sorted(previews.due_steps(count, steps))

    assert len(found) == len(due)
    assert all(abs(one - other) <= 2 for one, other in zip(found, due, strict=True))
    assert not {0, steps} & set(found)


@pytest.mark.parametrize("family", TRAINED_FAMILIES)
def test_a_preview_resembles_the_final_image(
    trained: Catalogue, trained_pool: Pool, storage: Storage, family: str
) -> None:
    watch = RecordingWatch()
    parameters = make_job(trained, family, num_inference_steps=8, previews=10, width=64, height=96)

    (outcome,) = run_jobs(parameters, trained_pool, storage, watch)

    assert outcome.status == "completed"
    final = decode_pixels(storage.read(outcome.stored[0].key))
    shown = [preview for _, preview in watch.previews]
    steps = [preview.step for preview in shown]
    assert steps == sorted(previews.due_steps(10, 8))
    assert {(one.index, one.steps, one.width, one.height) for one in shown} == {(0, 8, 64, 96)}
    assert decode_preview(shown[0]).size == (64, 96)
    assert likeness(shown[-1], final) > 0.9
    assert likeness(shown[-1], final) > likeness(shown[0], final)


@pytest.mark.parametrize("family", TRAINED_FAMILIES if ALL else ["sdxl", "flux"])  # one of each kind
def test_previews_of_every_scheduler_resemble_the_image_after_a_fifth_of_the_steps(
    trained: Catalogue, trained_pool: Pool, storage: Storage, family: str
) -> None:
    schedulers = trained.model(f"shapes-{family}").schedulers
    for scheduler in schedulers if ALL else schedulers[::4]:
        watch = RecordingWatch()
        parameters = make_job(trained, family, num_inference_steps=5, previews=4, scheduler=scheduler)
        (outcome,) = run_jobs(parameters, trained_pool, storage, watch)
        assert outcome.status == "completed"
        final = decode_pixels(storage.read(outcome.stored[0].key))
        # The noisy latents themselves would not resemble the image this early.
        assert likeness(watch.previews[0][1], final) > 0.6, scheduler
        assert likeness(watch.previews[-1][1], final) > 0.9, scheduler


@pytest.mark.parametrize(
    ("family", "mode"),
    covering([(family, mode) for family in TRAINED_FAMILIES for mode in FAMILIES[family].modes]),
)
def test_a_job_with_previews_gives_the_same_bytes(
    catalogue: Catalogue, pool: Pool, storage: Storage, family: str, mode: Mode
) -> None:
    plain, shown = (
        complete_job(make_job(catalogue, family, mode, num_inference_steps=2, previews=count), pool, storage)
        for count in (0, 10)
    )
    assert plain[0] == shown[0]
    assert shown[1].parameters.previews == 10


def test_each_of_several_jobs_gets_previews_of_its_own_images_only(
    trained: Catalogue, trained_pool: Pool, storage: Storage
) -> None:
    watch = RecordingWatch()
    shared: dict[str, Any] = {"num_inference_steps": 4, "seed": None}
    jobs = [
        make_job(trained, "sdxl", prompt="a red circle on a blue background", previews=1, num_images=2, **shared),
        make_job(trained, "sdxl", prompt="a green square on a white background", **shared),
        make_job(trained, "sdxl", prompt="a yellow star on a black background", previews=10, **shared),
    ]

    outcomes = run_jobs(jobs, trained_pool, storage, watch)

    # Each job sends its own from a thread of its own: in order within the job only.
    shown = {
        id: [(preview.step, preview.index) for job_id, preview in watch.previews if job_id == id]
        for id in ("job0", "job1", "job2")
    }
    assert shown == {"job0": [(2, 0), (2, 1)], "job1": [], "job2": [(1, 0), (2, 0), (3, 0)]}
    last = {(job_id, preview.index): preview for job_id, preview in watch.previews}
    for (job_id, index), preview in last.items():
        key = outcomes[int(job_id[-1])].stored[index].key
        assert likeness(preview, decode_pixels(storage.read(key))) > 0.5


def test_a_flow_is_estimated_by_its_sigmas_whatever_its_timesteps() -> None:
    config = {"use_dynamic_shifting": True, "time_shift_type": "linear"}
    scheduler = make_scheduler("flow_euler", config)
    scheduler.set_timesteps(timesteps=[900.0, 500.0, 100.0], sigmas=[0.9, 0.5, 0.1], mu=2.0)
    estimate = previews.DenoisedEstimate(scheduler, "flow")
    image, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    sigma = float(scheduler.sigmas[0])
    latents = (1 - sigma) * image + sigma * noise

    for timestep in scheduler.timesteps:
        latents = scheduler.step(noise - image, timestep, latents, return_dict=False)[0]
        assert torch.allclose(estimate.current(latents), image, atol=1e-5)
    assert sigma > 0.9


def test_a_preview_that_cannot_be_sent_does_not_fail_the_job(
    catalogue: Catalogue, pool: Pool, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    class FailingWatch(RecordingWatch):
        def preview(self, job_id: str, preview: Preview) -> None:
            raise RuntimeError("nobody listens")

    (outcome,) = run_jobs(make_job(catalogue, "flux", previews=1), pool, storage, FailingWatch())

    assert outcome.status == "completed"
    assert "no preview after step" in caplog.text


def test_a_stopped_job_leaves_no_thread(catalogue: Catalogue, pool: Pool, storage: Storage) -> None:
    watch = RecordingWatch(stop_after=2, error=JobStopped())
    with pytest.raises(JobStopped):
        run_jobs(make_job(catalogue, "sdxl", previews=2), pool, storage, watch)

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("previews")]


def test_a_preview_becomes_an_event_while_the_lease_is_held(queue: JobQueue) -> None:
    job = queue.submit(parameters())
    reporter = ProgressReporter(Claims(queue.connection, QueueSettings(), "one", 60), report_seconds=600)
    watch = JobWatch(reporter, take(reporter.claims))
    shown = Preview(index=0, step=1, steps=4, width=8, height=8, url="data:image/jpeg;base64,AA==")

    watch.preview(shown)
    reporter.claims.release(watch.claim)
    watch.preview(shown.model_copy(update={"step": 2}))
    watch.drop()
    watch.preview(shown.model_copy(update={"step": 3}))

    told = [event for event in queue.events(job.id, "0", 99) if event.kind == "preview"]
    assert [event.data for event in told] == [shown.model_dump()]


@pytest.mark.parametrize("colour", [(0.9, 0.1, 0.1), (0.2, 0.3, 0.9), (0.5, 0.5, 0.5)])
def test_the_projection_is_fitted_to_the_models_own_vae(
    trained: Catalogue, trained_pool: Pool, colour: tuple[float, float, float]
) -> None:
    for family in TRAINED_FAMILIES:
        model = trained_pool.model(model_of(trained, family))
        vae = model.base.vae
        with torch.inference_mode():
            pixels = torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, 64, 64) * 2 - 1
            latents = vae.encode(pixels).latent_dist.mode()
        latents = (latents - (vae.config.shift_factor or 0)) * vae.config.scaling_factor

        shown = model.projection.apply(latents).float() / 255

        assert (shown - torch.tensor(colour)).abs().mean() < 0.1
        assert model.projection is model.projection


def test_previews_of_large_images_are_scaled_down(catalogue: Catalogue, pool: Pool, storage: Storage) -> None:
    watch = RecordingWatch()
    run_jobs(
        make_job(catalogue, "sdxl", num_inference_steps=2, previews=1, width=512, height=128), pool, storage, watch
    )

    ((_, preview),) = watch.previews
    assert (preview.width, preview.height) == (256, 64)
    assert len(preview.url) < 20_000


@pytest.mark.parametrize("scheduler", ["euler_a", "ddim", "lcm"])
def test_the_pipeline_passes_a_scheduler_the_same_arguments_with_previews(scheduler: str, pool: Pool) -> None:
    """Pipelines of diffusers 0.42 look at the signature of `step`, which a plain replacement would not keep."""
    pipeline = pool.model("shapes-sdxl").pipeline(Mode.TXT2IMG, scheduler)
    generator = torch.Generator()
    arguments = pipeline.prepare_extra_step_kwargs(generator, 0.5)
    previews.DenoisedEstimate(pipeline.scheduler, "diffusion")
    assert pipeline.prepare_extra_step_kwargs(generator, 0.5) == arguments
    pipeline.scheduler.step = lambda *_, **__: None
    assert pipeline.prepare_extra_step_kwargs(generator, 0.5) != arguments
