"""Erasing: exact outside the mask, scaled down around a large one, transparency kept, LaMas of any size."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.reader import read_catalogue
from contracts.errors import CatalogueError
from contracts.jobs.records import JobState
from contracts.memory.sizes.networks import SCRATCH_BYTES, eraser_bytes
from contracts.queue.client import JobQueue
from contracts.requests.plain.erasing import EraseParameters
from contracts.requests.task_parameters import JobTask
from contracts.settings import BUILT_IN_CATALOGUE, SharedSettings
from contracts.storage import Storage
from contracts.weights.networks import read_eraser
from tests.support.images import encode_image
from tests.support.upscalers import write_compact
from tests.support.workers import make_consumer, only, work_until_ended
from worker.checkpoints.networks import LaMa, load_network
from worker.pool.pool import Pool
from worker.runtime.memory_tracker import MemoryTracker
from worker.tasks.erase import erase_steps, surroundings

CPU = torch.device("cpu")
BUILT_IN = read_catalogue(BUILT_IN_CATALOGUE)
FILE = BUILT_IN.root / BUILT_IN.eraser("shapes-eraser").source


def picture(width: int = 96, height: int = 80) -> Image.Image:
    """A red square on blue."""
    image = Image.new("RGB", (width, height), (40, 70, 220))
    image.paste((220, 35, 35), (30, 24, 60, 54))
    return image


def mask_of(image: Image.Image) -> Image.Image:
    """White over the square and a few pixels around it."""
    mask = Image.new("L", image.size, 0)
    mask.paste(255, (27, 21, 63, 57))
    return mask


def job(image: Image.Image, storage: Storage, **changes: Any) -> EraseParameters:
    storage.write("inputs/picture.png", encode_image(image))
    storage.write("inputs/mask.png", encode_image(mask_of(image)))
    return EraseParameters(
        task=JobTask.ERASE, model="shapes-eraser", image="inputs/picture.png", mask_image="inputs/mask.png",
        width=image.width, height=image.height, **changes,
    )  # fmt: skip


def load(file: Path = FILE) -> LaMa:
    network = load_network(file, CPU, ("LaMa",))
    assert isinstance(network, LaMa)
    return network


@pytest.fixture(scope="module")
def network() -> LaMa:
    return load()


def erased(network: LaMa, image: Image.Image, max_pixels: int) -> Any:
    pixels, mask = np.asarray(image).copy(), np.asarray(mask_of(image)) > 0
    with torch.inference_mode():
        for step in erase_steps(network, pixels, mask, surroundings(mask), max_pixels, CPU):
            step()
    return pixels


def test_the_parts_of_the_network_in_a_row_are_the_network(network: LaMa) -> None:
    generator = torch.Generator().manual_seed(1)
    image, hole = torch.rand(1, 3, 32, 40, generator=generator), torch.zeros(1, 1, 32, 40)
    hole[..., 8:20, 10:30] = 1
    with torch.inference_mode():
        made = torch.nn.Sequential(*network.parts)(torch.cat([image * (1 - hole), hole], 1))
        assert torch.equal(network(image, hole), hole * made + (1 - hole) * image)
    assert len(network.parts) > 8


@pytest.mark.parametrize("max_pixels", [10**6, 48 * 40])
@pytest.mark.parametrize("size", [(96, 80), (97, 59)])
def test_the_shape_is_gone_and_all_else_is_exactly_as_it_was(
    network: LaMa, size: tuple[int, int], max_pixels: int
) -> None:
    image = picture(*size)
    before, made = np.asarray(image), erased(network, image, max_pixels)
    inside = np.asarray(mask_of(image)) > 0
    assert np.array_equal(made[~inside], before[~inside])
    off = np.abs(made[inside].astype(int) - (40, 70, 220)).mean()
    assert off < 25
    assert np.abs(before[inside].astype(int) - (40, 70, 220)).mean() > 60


def test_only_the_surroundings_of_a_mask_are_looked_at() -> None:
    mask = np.zeros((2000, 3000), bool)
    mask[500:700, 1000:1040] = True
    assert surroundings(mask) == (850, 350, 1190, 850)
    mask[0, 0] = mask[1999, 2999] = True
    assert surroundings(mask) == (0, 0, 3000, 2000)


def test_an_eraser_takes_no_more_memory_than_was_planned() -> None:
    facts, tracker = read_eraser(FILE), MemoryTracker(CPU, 2**40)
    image = picture(256, 256)
    with torch.inference_mode(), tracker.running(0):
        erased(load(), image, 10**6)
    box = surroundings(np.asarray(mask_of(image)) > 0)
    planned = eraser_bytes(facts, (box[2] - box[0]) * (box[3] - box[1]))
    assert tracker.peak_bytes is not None
    assert planned / 3 < tracker.peak_bytes + SCRATCH_BYTES < planned * 1.05


def test_the_published_names_of_tensors_are_read_too(network: LaMa, tmp_path: Path) -> None:
    file = tmp_path / "big-lama.safetensors"
    names = {name: name.replace("model.model.", "generator.model.", 1) for name in load_file(FILE)}
    save_file({names[name]: value for name, value in load_file(FILE).items()}, file)
    assert read_eraser(file) == read_eraser(FILE)
    same = load(file)
    assert np.array_equal(erased(same, picture(), 10**6), erased(network, picture(), 10**6))


def test_an_upscaler_is_no_eraser(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="LaMa"):
        read_eraser(write_compact(tmp_path / "a.safetensors"))


def test_an_erasure_is_a_job_that_keeps_transparency_and_says_what_made_it(
    settings: SharedSettings, queue: JobQueue, catalogue: Catalogue, storage: Storage
) -> None:
    image = picture()
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, 20, 20))
    image.putalpha(alpha)
    id = queue.submit(job(image, storage)).id
    pool = Pool(only(catalogue, "sdxl"), device="cpu")
    (record,) = work_until_ended(make_consumer(settings, pool, storage), queue, id)
    assert (record.state, record.progress.step) == (JobState.COMPLETED, record.progress.steps)
    assert (record.progress.steps or 0) > 8  # other jobs may run between them
    made = Image.open(io.BytesIO(storage.read(record.images[0].key)))
    assert (made.mode, made.size) == ("RGBA", image.size)
    inside = np.asarray(mask_of(image)) > 0
    assert np.array_equal(np.asarray(made)[~inside], np.asarray(image)[~inside])
    assert np.array_equal(np.asarray(made)[..., 3], np.asarray(alpha))
    assert record.receipt is not None
    assert (record.receipt.model.id, record.receipt.deviations) == ("shapes-eraser", [])
    assert set(record.parameters.inputs) == {"inputs/picture.png", "inputs/mask.png"}
