"""A control image that a job makes itself: the model's own, which is gone before the job's own model comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.catalogue.rows.networks import PreprocessorSpec
from contracts.jobs.failures import FailureCode
from contracts.provenance.pixels import hash_pixels
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support.images import encode_image
from tests.support.jobs import INPUT_IMAGES, complete_job, decode_pixels, fail_job, make_job, run_jobs
from tests.support.preprocessor_models import write_dpt, write_vitpose
from worker.pool.pool import Pool
from worker.preprocessors.maps import ControlMap, on_white

CPU = torch.device("cpu")
PHOTO = INPUT_IMAGES["inputs/control.png"]


@pytest.fixture(scope="module")
def with_models(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """The catalogue with a model of depths, one of poses, and one whose weights are damaged."""
    folder = tmp_path_factory.mktemp("preprocessors")
    broken = write_dpt(folder / "broken")
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[:-400])
    rows = (
        PreprocessorSpec(id="depth", source=str(write_dpt(folder / "depth")), kind="depth"),
        PreprocessorSpec(id="pose", source=str(write_vitpose(folder / "pose")), kind="pose"),
        PreprocessorSpec(id="broken", source=str(broken), kind="depth"),
    )
    return catalogue.model_copy(update={"preprocessors": rows})


@pytest.fixture(scope="module")
def map_pool(with_models: Catalogue) -> Pool:
    return Pool(with_models, device="cpu")


def job(catalogue: Catalogue, name: str | None, **options: float) -> JobParameters:
    fields: dict[str, Any] = {} if name is None else {"preprocess": name, "preprocess_options": options}
    return make_job(catalogue, "sdxl", Mode.CONTROLNET, num_inference_steps=1, control_fields=fields)


def map_of(catalogue: Catalogue, name: str, side: int, **options: float) -> Image.Image:
    row = catalogue.preprocessor(name)
    control = ControlMap(Path(row.source), row.kind, on_white(PHOTO, (side, side)), options)
    control.load(CPU)
    return control.make()


def test_the_image_is_that_of_the_map_made_before_and_the_receipt_has_its_hash(
    with_models: Catalogue, map_pool: Pool, storage: Storage
) -> None:
    made = map_of(with_models, "depth", 64)
    (file,), receipt = complete_job(job(with_models, "depth"), map_pool, storage)
    (use,) = receipt.control_maps
    assert (use.control, use.preprocessor.id, use.pixels_sha256) == (0, "depth", hash_pixels(made))
    assert use.preprocessor.sha256 == map_pool.fetcher.network("preprocessor:depth")[1].sha256
    assert "preprocess" in receipt.timings
    assert map_pool.reserved_bytes == 0

    (plain,), _ = complete_job(job(with_models, None), map_pool, storage)
    storage.write("inputs/control.png", encode_image(made))
    (by_hand,), other = complete_job(job(with_models, None), map_pool, storage)
    assert np.array_equal(decode_pixels(file), decode_pixels(by_hand))
    assert not np.array_equal(decode_pixels(file), decode_pixels(plain))
    assert other.control_maps == []


def test_options_act_and_each_job_in_company_has_its_own_map(
    with_models: Catalogue, map_pool: Pool, storage: Storage
) -> None:
    jobs = [
        job(with_models, "depth", resolution=128),
        job(with_models, "pose", confidence=0.0),
        job(with_models, None),
        job(with_models, "pose", confidence=1.0),
    ]
    alone = [complete_job(one, map_pool, storage) for one in jobs]
    together = run_jobs(jobs, map_pool, storage)
    for (files, receipt), result in zip(alone, together, strict=True):
        assert [storage.read(image.key) for image in result.stored] == files
        assert result.receipt.control_maps == receipt.control_maps
    hashes = [use.pixels_sha256 for _, receipt in alone for use in receipt.control_maps]
    expected = [
        map_of(with_models, "depth", 128),
        map_of(with_models, "pose", 64, confidence=0.0),
        map_of(with_models, "pose", 64, confidence=1.0),
    ]
    assert hashes == [hash_pixels(image) for image in expected]
    assert len(set(hashes)) == 3


def test_a_model_that_cannot_run_fails_its_own_job_in_a_sentence(
    with_models: Catalogue, map_pool: Pool, storage: Storage
) -> None:
    error = fail_job(job(with_models, "broken"), map_pool, storage)
    assert error.code is FailureCode.MODEL_LOAD_FAILED
    assert "broken cannot be loaded" in error.message

    small = Pool(with_models, device="cpu", budget_bytes=2**20)
    error = fail_job(job(with_models, "depth"), small, storage)
    assert error.code is FailureCode.OUT_OF_MEMORY
    assert map_pool.reserved_bytes == small.reserved_bytes == 0
