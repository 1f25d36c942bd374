"""Depth maps: those of transformers' pipeline, within the planned memory, from files that are what they say."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, DepthEstimationPipeline

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.networks import PreprocessorSpec
from contracts.errors import CatalogueError
from contracts.hub.errors import HubRefused
from contracts.hub.selection import RepositoryFiles, transformers_files
from contracts.jobs.records import JobState
from contracts.queue.client import JobQueue
from contracts.requests.plain.preprocessing import PreprocessParameters
from contracts.requests.task_parameters import JobTask
from contracts.settings import SharedSettings
from contracts.storage import Storage
from contracts.weights.depth_models import read_depth_model
from tests.support.depth_models import write_depth_anything, write_dpt
from tests.support.images import encode_image
from tests.support.workers import make_consumer, work_until_ended
from worker.networks.images import SCRATCH_BYTES
from worker.pool.pool import Pool
from worker.runtime.memory_tracker import MemoryTracker
from worker.tasks.depth import depth_of, load_model, load_processor, on_white, planned_bytes

CPU = torch.device("cpu")


def photo(size: tuple[int, int] = (60, 40)) -> Image.Image:
    image = Image.new("RGB", size, "yellow")
    ImageDraw.Draw(image).ellipse((10, 8, 40, 36), fill="navy")
    return image


@pytest.fixture(scope="module")
def dpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dpt(tmp_path_factory.mktemp("models") / "dpt")


def reference(folder: Path, image: Image.Image) -> Any:
    """The map of transformers' pipeline, which is loaded apart."""
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    pipeline = DepthEstimationPipeline(model=load_model(folder, CPU), image_processor=processor)
    return np.asarray(pipeline(image)["depth"])


@pytest.mark.parametrize("write", [write_dpt, write_depth_anything])
def test_the_map_is_that_of_transformers_pipeline(write: Callable[[Path], Path], tmp_path: Path) -> None:
    folder, image = write(tmp_path), photo()
    processor = load_processor(folder)
    made = depth_of(load_model(folder, CPU), processor, processor(images=image, return_tensors="pt"), image.size)
    assert np.array_equal(made, reference(folder, image))
    assert (made.shape, made.min(), made.max()) == ((40, 60), 0, 255)


def test_a_model_takes_no_more_memory_than_was_planned(tmp_path: Path) -> None:
    folder, image, tracker = write_dpt(tmp_path, side=256), photo((256, 256)), MemoryTracker(CPU, 2**40)
    processor = load_processor(folder)
    given = processor(images=image, return_tensors="pt")
    with tracker.running(0):
        depth_of(load_model(folder, CPU), processor, given, image.size)
    planned = planned_bytes(read_depth_model(folder), (256, 256), image.size)
    assert tracker.peak_bytes is not None
    assert planned / 4 < tracker.peak_bytes + SCRATCH_BYTES < planned * 1.05


def test_an_image_without_depth_is_black(dpt: Path) -> None:
    model, processor, image = load_model(dpt, CPU), load_processor(dpt), photo()
    for parameter in model.parameters():
        parameter.data.zero_()
    given = processor(images=image, return_tensors="pt")
    assert not depth_of(model, processor, given, image.size).any()


def test_what_is_transparent_is_white_before_the_model_sees_it() -> None:
    image = photo()
    image.putalpha(0)
    assert on_white(image, (30, 20)).getextrema() == ((255, 255),) * 3


def test_the_layer_that_is_never_used_may_be_missing_and_no_other(dpt: Path, tmp_path: Path) -> None:
    folder, image = tmp_path / "dpt", photo()
    shutil.copytree(dpt, folder)
    weights = load_file(folder / "model.safetensors")
    unused = "neck.fusion_stage.layers.0.residual_layer1."
    kept = {name: value for name, value in weights.items() if not name.startswith(unused)}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    processor = load_processor(folder)
    given = processor(images=image, return_tensors="pt")
    assert np.array_equal(depth_of(load_model(folder, CPU), processor, given, image.size), reference(dpt, image))
    del kept["head.head.0.weight"]
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CatalogueError, match=r"lacks weights: head\.head\.0\.weight"):
        load_model(folder, CPU)


@pytest.mark.parametrize(
    ("file", "text"),
    [("preprocessor_config.json", "preprocessor_config"), ("model.safetensors", "no model.safetensors")],
)
def test_a_folder_that_lacks_a_file_is_refused_by_its_name(
    dpt: Path, tmp_path: Path, file: str, text: str
) -> None:
    folder = tmp_path / "dpt"
    shutil.copytree(dpt, folder)
    (folder / file).unlink()
    with pytest.raises(CatalogueError, match=text):
        read_depth_model(folder)


def test_of_a_repository_its_configurations_and_weights_are_fetched_and_never_pickles(dpt: Path) -> None:
    files = RepositoryFiles.in_folder(dpt)
    names = {*files.names, "README.md", "model.bin"}
    chosen = transformers_files()(replace(files, names=names))
    assert chosen == ["config.json", "preprocessor_config.json", "model.safetensors"]
    with pytest.raises(HubRefused, match="only pickles"):
        transformers_files()(replace(files, names=names - {"model.safetensors"}))
    with pytest.raises(HubRefused, match=r"has no preprocessor_config\.json"):
        transformers_files()(replace(files, names=names - {"preprocessor_config.json"}))


def test_another_kind_of_model_is_refused_by_its_class(dpt: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dpt"
    shutil.copytree(dpt, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for changes, text in (
        ({"architectures": ["DPTForSemanticSegmentation"]}, "is a DPTForSemanticSegmentation; only DPTFor"),
        ({"fusion_hidden_size": "much"}, "fusion_hidden_size must be a positive whole number"),
    ):
        (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
        with pytest.raises(CatalogueError, match=text):
            read_depth_model(folder)


def test_a_depth_map_is_a_job_that_says_what_made_it(
    settings: SharedSettings, queue: JobQueue, catalogue: Catalogue, storage: Storage, dpt: Path
) -> None:
    row = PreprocessorSpec(id="depth", source=str(dpt), kind="depth")
    image = photo((120, 80))
    storage.write("inputs/photo.png", encode_image(image))
    job = PreprocessParameters(
        task=JobTask.PREPROCESS, model="depth", preprocess="depth", preprocess_options={"resolution": 40},
        image="inputs/photo.png", width=60, height=40,
    )  # fmt: skip
    pool = Pool(catalogue.model_copy(update={"preprocessors": (row,)}), device="cpu")
    id = queue.submit(job).id
    (record,) = work_until_ended(make_consumer(settings, pool, storage), queue, id)
    assert (record.state, record.progress.step, record.progress.steps) == (JobState.COMPLETED, 1, 1)
    made = np.asarray(Image.open(io.BytesIO(storage.read(record.images[0].key))))
    assert made.shape == (40, 60, 3)
    assert np.array_equal(made[..., 0], reference(dpt, on_white(image, (60, 40))))
    assert record.receipt is not None
    assert record.receipt.model.id == "depth"
    assert record.receipt.memory.planned_bytes > read_depth_model(dpt).values * 4
