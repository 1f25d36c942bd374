"""Upscaled images: tiles, transparency, memory, cancels, and company in one worker."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from contracts.catalogue.catalogue import Catalogue, UpscalerSpec
from contracts.jobs.records import JobState
from contracts.memory.sizes.networks import SCRATCH_BYTES, upscaler_bytes
from contracts.queue.client import JobQueue
from contracts.requests.plain.upscaling import UpscaleParameters
from contracts.requests.task_parameters import JobTask
from contracts.settings import SharedSettings
from contracts.storage import Storage
from contracts.weights.networks import read_upscaler
from tests.support.images import encode_image
from tests.support.parameters import parameters
from tests.support.upscalers import upscale_pixels, write_compact, write_esrgan
from tests.support.workers import after_each_step, make_consumer, only, work_until_ended
from worker.checkpoints.networks import load_network
from worker.engine.engine import Engine
from worker.engine.job import Job, JobInFlight
from worker.generation.alone import Unwatched
from worker.generation.results.outputs import JobResult
from worker.pool.pool import Pool
from worker.runtime.memory_tracker import MemoryTracker
from worker.tasks.attempt import Attempt
from worker.tasks.runs import run_task

CPU = torch.device("cpu")


def pattern(width: int, height: int) -> Image.Image:
    """A picture with something in every corner."""
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.fixture
def upscaler_pool(catalogue: Catalogue, tmp_path: Path) -> Pool:
    """A pool with a Compact that doubles, beside the small models."""
    file = write_compact(tmp_path / "double.safetensors")
    row = UpscalerSpec(id="double", source=str(file), scale=2)
    return Pool(only(catalogue, "sdxl").model_copy(update={"upscalers": (row,)}), device="cpu")


def job(image: Image.Image, storage: Storage, **changes: Any) -> UpscaleParameters:
    storage.write("inputs/picture.png", encode_image(image))
    fields: dict[str, Any] = {
        "task": JobTask.UPSCALE,
        "model": "double",
        "image": "inputs/picture.png",
        "scale": 2,
    }
    size = {"width": 2 * image.width, "height": 2 * image.height}
    return UpscaleParameters(**fields, **size, **changes)


def image_of(queue: JobQueue, storage: Storage, id: str) -> Image.Image:
    (image,) = queue.fetch(id).images
    return Image.open(io.BytesIO(storage.read(image.key)))


@pytest.mark.parametrize("write", [write_compact, write_esrgan])
def test_tiles_make_the_image_that_the_whole_makes(write: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "network.safetensors")
    facts = read_upscaler(file)
    picture = np.asarray(pattern(90, 70))
    with torch.inference_mode():
        network = load_network(file, CPU, (facts.architecture,))
        whole = upscale_pixels(network, facts, picture, 1024, CPU)
        tiled = upscale_pixels(network, facts, picture, 32, CPU)
    assert whole.shape == (70 * facts.scale, 90 * facts.scale, 3)
    assert int(np.abs(whole.astype(int) - tiled).max()) <= 1


@pytest.mark.parametrize("scale", [1, 2])
def test_an_image_of_any_size_suits_a_network_that_shuffles_pixels(scale: int, tmp_path: Path) -> None:
    file = write_esrgan(tmp_path / "network.safetensors", scale)
    facts = read_upscaler(file)
    with torch.inference_mode():
        network = load_network(file, CPU, ("ESRGAN",))
        made = upscale_pixels(network, facts, np.asarray(pattern(37, 3)), 16, CPU)
    assert (facts.scale, made.shape) == (scale, (3 * scale, 37 * scale, 3))


@pytest.mark.parametrize(("write", "options"), [(write_compact, {"layers": 4}), (write_esrgan, {"features": 16})])
def test_a_tile_takes_no_more_memory_than_was_planned(write: Any, options: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "network.safetensors", **options)
    facts, tracker = read_upscaler(file), MemoryTracker(CPU, 2**40)
    planned = upscaler_bytes(facts, (96, 96), 64)
    with torch.inference_mode(), tracker.running(0):
        network = load_network(file, CPU, (facts.architecture,))
        upscale_pixels(network, facts, np.asarray(pattern(96, 96)), 64, CPU)
    assert tracker.peak_bytes is not None
    assert planned / 3 < tracker.peak_bytes + SCRATCH_BYTES < planned * 1.05


def test_an_upscaled_image_keeps_its_transparency(
    settings: SharedSettings, queue: JobQueue, upscaler_pool: Pool, storage: Storage
) -> None:
    picture = pattern(40, 30)
    alpha = Image.new("L", picture.size, 255)
    alpha.paste(0, (0, 0, 20, 30))
    picture.putalpha(alpha)
    ids = [queue.submit(job(picture, storage, output_format=name)).id for name in ("png", "jpeg")]
    work_until_ended(make_consumer(settings, upscaler_pool, storage), queue, *ids)
    made, flat = (image_of(queue, storage, id) for id in ids)
    assert (made.size, made.mode, flat.mode) == ((80, 60), "RGBA", "RGB")
    assert made.getchannel("A").getpixel((5, 5)) == 0
    assert made.getchannel("A").getpixel((75, 55)) == 255
    assert min(flat.getpixel((5, 5))) > 240  # type: ignore[arg-type]


def test_a_receipt_says_what_made_an_upscaled_image(
    settings: SharedSettings, queue: JobQueue, upscaler_pool: Pool, storage: Storage
) -> None:
    id = queue.submit(job(pattern(150, 140), storage)).id
    (record,) = work_until_ended(make_consumer(settings, upscaler_pool, storage), queue, id)
    receipt = record.receipt
    assert receipt is not None
    assert (record.state, record.progress.step, record.progress.steps) == (JobState.COMPLETED, 4, 4)
    assert receipt.model.id == "double"
    assert len(receipt.model.sha256) == 64
    assert (receipt.parameters, receipt.seeds) == (record.parameters, [None])
    assert {"read_inputs", "load", "upscale", "write"} <= receipt.timings.keys()
    assert image_of(queue, storage, id).info.keys() & {"darkroom", "parameters"} == {"darkroom"}


def test_an_upscale_is_cancelled_between_tiles(
    settings: SharedSettings, queue: JobQueue, upscaler_pool: Pool, storage: Storage
) -> None:
    id = queue.submit(job(pattern(300, 300), storage)).id
    steps: list[int] = []

    def cancel(_: str, step: int) -> None:
        steps.append(step)
        if step == 2:
            queue.cancel(id)

    with after_each_step(cancel):
        (record,) = work_until_ended(make_consumer(settings, upscaler_pool, storage, report_seconds=0), queue, id)
    assert (record.state, record.images) == (JobState.CANCELLED, [])
    assert max(steps) < 9
    assert storage.find("images/") == []


def run_together(pool: Pool, storage: Storage, *jobs: Any) -> list[list[Any]]:
    """The pixels of jobs that are in flight at the same time."""
    engine = Engine(pool)

    def work(flight: JobInFlight) -> JobResult:
        return run_task(Attempt(flight, engine, pool, storage, Unwatched()))

    flights = [engine.start(Job(str(number), one), work) for number, one in enumerate(jobs)]
    assert len(engine.jobs) == len(jobs)
    while engine.jobs:
        engine.tick()
    return [[np.asarray(image) for image in flight.result.images] for flight in flights]


def test_an_upscale_and_a_generation_share_a_worker_and_neither_changes_the_other(
    upscaler_pool: Pool, storage: Storage
) -> None:
    upscaled, generated = job(pattern(140, 140), storage), parameters(batchable=False, num_inference_steps=2)
    alone = [run_together(upscaler_pool, storage, one)[0] for one in (upscaled, generated)]
    together = run_together(upscaler_pool, storage, upscaled, generated)
    assert len(together[0]) == len(together[1]) == 1
    assert all(map(np.array_equal, alone, together))


def test_a_small_budget_gets_smaller_tiles_and_one_too_small_for_any_is_told(
    settings: SharedSettings, queue: JobQueue, catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    file = write_compact(tmp_path / "double.safetensors", features=32)
    row = UpscalerSpec(id="double", source=str(file), scale=2)
    rows = only(catalogue, "sdxl").model_copy(update={"upscalers": (row,)})
    facts, picture = read_upscaler(file), pattern(140, 140)
    needed = [upscaler_bytes(facts, picture.size, side) for side in (128, 64)]
    messages = []
    for budget_bytes in (int(sum(needed) / 2 / 0.95), int(needed[1] / 2)):
        id = queue.submit(job(picture, storage)).id
        pool = Pool(rows, device="cpu", budget_bytes=budget_bytes)
        (record,) = work_until_ended(make_consumer(settings, pool, storage), queue, id)
        messages.append((record.receipt and record.receipt.deviations, record.error and record.error.code.value))
    assert messages == [(["tiles of 64 pixels"], None), (None, "out_of_memory")]


def test_a_job_says_that_its_image_has_expired(
    settings: SharedSettings, queue: JobQueue, upscaler_pool: Pool, storage: Storage
) -> None:
    id = queue.submit(job(pattern(8, 8), storage)).id
    storage.delete("inputs/picture.png")
    (record,) = work_until_ended(make_consumer(settings, upscaler_pool, storage), queue, id)
    assert record.error is not None
    assert record.error.code.value == "input_missing"
