"""FLUX.1 Redux gives the image of diffusers' two calls and acts on its own job alone; misfits are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from safetensors.torch import load_file, save_file
from transformers import SiglipImageProcessorPil, SiglipVisionModel

from bench.peaks import TOLERANCE, candidates_of
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.jobs.failures import FailureCode
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support.ip_adapters import SIDE, redux_row, redux_tensors
from tests.support.jobs import (
    INPUT_IMAGES,
    Pixels,
    complete_job,
    decode_pixels,
    fail_job,
    generate_pixels,
    make_job,
    run_jobs,
)
from worker.pool.pool import PLANNED_SHARE, Pool

ONE, TWO = "inputs/image.png", "inputs/reference.png"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("redux")


@pytest.fixture(scope="module")
def redux(catalogue: Catalogue, folder: Path) -> Catalogue:
    return catalogue.model_copy(update={"ip_adapters": (redux_row(catalogue, folder),)})


@pytest.fixture(scope="module")
def redux_pool(redux: Catalogue) -> Pool:
    return Pool(redux, device="cpu")


def _entry(*images: str, scale: float = 1.0) -> dict[str, Any]:
    return {"name": "flux-redux", "images": images, "scale": scale}


def _job(
    catalogue: Catalogue, *entries: dict[str, Any], mode: Mode = Mode.TXT2IMG, **fields: Any
) -> JobParameters:
    return make_job(catalogue, "flux", mode, ip_adapters=entries, **{"num_inference_steps": 2, **fields})


@pytest.fixture(scope="module")
def two_pipelines(redux: Catalogue, folder: Path) -> tuple[Any, Any]:
    """The pipelines of diffusers."""
    checkpoint = redux.root / redux.model("shapes-flux").source
    flux = diffusers.FluxPipeline.from_pretrained(checkpoint, dtype=torch.float32)
    weights = load_file(folder / "redux.safetensors")
    embedder = ReduxImageEncoder(weights["redux_up.weight"].shape[1], len(weights["redux_down.bias"]))
    embedder.load_state_dict(weights)
    prior = diffusers.FluxPriorReduxPipeline(
        image_encoder=SiglipVisionModel.from_pretrained(folder / "siglip"),
        feature_extractor=SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        image_embedder=embedder,
        **{name: part for name, part in flux.components.items() if name.startswith(("text_encoder", "tokenizer"))},
    )
    flux.set_progress_bar_config(disable=True)
    return prior, flux


def _by_two_calls(
    pipelines: tuple[Any, Any], images: Sequence[str], scales: list[float], job: JobParameters
) -> list[Pixels]:
    """The images of two calls, which know nothing of Darkroom; the first always reads 512 tokens."""
    prior, flux = pipelines
    prompt = prior(
        [INPUT_IMAGES[image] for image in images],
        prompt=job.prompt.strip(),
        prompt_embeds_scale=scales,
        pooled_prompt_embeds_scale=scales,
    )
    found = flux(
        **{name: tensor.repeat_interleave(job.num_images, 0) for name, tensor in prompt.items()},
        num_inference_steps=2, width=64, height=64,
        guidance_scale=3.5, generator=[torch.Generator("cpu").manual_seed(seed) for seed in job.seeds],
    ).images  # fmt: skip
    return [np.asarray(image, dtype=np.int16) for image in found]


def test_the_images_are_those_of_diffusers_two_calls(
    redux: Catalogue, redux_pool: Pool, two_pipelines: tuple[Any, Any], storage: Storage
) -> None:
    entries = [_entry(ONE, TWO, scale=0.4), _entry(TWO, scale=0.3)]
    job = _job(redux, *entries, num_images=2, max_sequence_length=512)
    expected = _by_two_calls(two_pipelines, [ONE, TWO, TWO], [0.4, 0.4, 0.3], job)

    files, receipt = complete_job(job, redux_pool, storage)

    assert np.array_equal([decode_pixels(file) for file in files], expected)
    plain = generate_pixels(_job(redux, max_sequence_length=512), redux_pool, storage)
    assert np.abs(expected[0] - plain).max() > 8, "it had no effect"
    # One name twice: a receipt has the weights of each entry, and the encoder that looked at its images.
    assert [(one.id, one.scale) for one in receipt.ip_adapters] == [("flux-redux", 0.4), ("flux-redux", 0.3)]
    assert {one.id for one in receipt.image_encoders} == {"siglip"}


def test_an_image_may_stand_for_the_prompt(
    redux: Catalogue, redux_pool: Pool, two_pipelines: tuple[Any, Any], storage: Storage
) -> None:
    job = _job(redux, _entry(ONE), prompt=" ", max_sequence_length=512)
    (expected,) = _by_two_calls(two_pipelines, [ONE], [1.0], job)
    assert np.array_equal(generate_pixels(job, redux_pool, storage), expected)


def test_jobs_with_different_references_or_none_run_together_and_see_their_own_alone(
    redux: Catalogue, redux_pool: Pool, storage: Storage
) -> None:
    sets = [[], [_entry(ONE)], [_entry(TWO)], [_entry(ONE, scale=0)]]
    exact = [_job(redux, *entries) for entries in sets]
    alone = [generate_pixels(job, redux_pool, storage) for job in exact]
    together = run_jobs([job.model_copy(update={"batchable": True}) for job in exact], redux_pool, storage)
    for pixels, result in zip(alone, together, strict=True):
        assert result.receipt is not None
        assert result.receipt.joined
        assert np.abs(decode_pixels(storage.read(result.stored[0].key)) - pixels).max() <= 1
    assert np.abs(alone[1] - alone[2]).max() > 8
    assert np.array_equal(alone[0], alone[3])


def test_it_acts_beside_a_control_image_an_image_and_a_mask(
    redux: Catalogue, redux_pool: Pool, storage: Storage
) -> None:
    with_it, without = (
        generate_pixels(_job(redux, *entries, mode=Mode.CONTROLNET_INPAINT), redux_pool, storage)
        for entries in ([_entry(ONE)], [])
    )
    assert np.abs(with_it - without).max() > 1


def test_its_tokens_are_in_the_plan(redux: Catalogue, shipped: Catalogue, storage: Storage) -> None:
    redux = shipped.model_copy(update={"ip_adapters": redux.ip_adapters})  # whose activations can be seen
    job = _job(redux, _entry(ONE, TWO), width=128, height=128)
    planned = candidates_of(redux, job)[-1]
    pool = Pool(redux, device="cpu", budget_bytes=int(planned.peak_bytes / PLANNED_SHARE) + 1)

    (result,) = run_jobs(job, pool, storage)

    assert result.receipt is not None
    memory = result.receipt.memory
    assert memory.plan == planned.name
    assert 0.85 < memory.peak_bytes / planned.peak_bytes <= 1 + TOLERANCE


_BROKEN: Mapping[str, tuple[Callable[[Any], object], str]] = {
    "nan": (lambda t: t["redux_up.bias"].fill_(float("nan")), "NaN or infinite"),
    "other": (lambda t: t.update(redux_tensors(64)), "its tokens have 64 values, and the model reads 128"),
    "partial": (lambda t: t.pop("redux_down.bias"), "lacks redux_down.bias"),
}


def test_a_file_that_does_not_fit_fails_its_job_by_name(
    redux: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    rows = []
    for name, (change, _) in _BROKEN.items():
        tensors = redux_tensors(128)
        change(tensors)
        save_file(tensors, tmp_path / f"{name}.safetensors")
        changed = {"id": name, "source": str(tmp_path / f"{name}.safetensors")}
        rows.append(redux.ip_adapter("flux-redux").model_copy(update=changed))
    pool = Pool(redux.model_copy(update={"ip_adapters": tuple(rows)}), device="cpu")
    for name, (_, reason) in _BROKEN.items():
        error = fail_job(_job(pool.catalogue, _entry(ONE) | {"name": name}), pool, storage)
        assert error.code is FailureCode.ADAPTER_INCOMPATIBLE
        assert reason in error.message
        assert str(tmp_path) not in error.message
