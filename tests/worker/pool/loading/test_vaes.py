"""A VAE of the catalogue in place of a model's own: images are those of diffusers with it; it leaves no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from contracts.catalogue.catalogue import Catalogue, VaeSpec
from contracts.catalogue.families import Mode
from contracts.errors import InvalidRequest
from contracts.jobs.failures import FailureCode
from contracts.memory.plan import Placement
from contracts.memory.sizes.component import Role
from contracts.storage import Storage
from contracts.weights.vae_files import WEIGHTS, with_vaes
from tests.support.adapters import checkpoint_of
from tests.support.combinations import ALL
from tests.support.jobs import (
    INPUT_IMAGES,
    complete_job,
    decode_pixels,
    fail_job,
    generate_pixels,
    make_job,
    run_jobs,
)
from tests.support.untrained_parts import seeded
from worker.checkpoints.files import ContentHasher
from worker.pool.pool import Pool


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vaes")


@pytest.fixture(scope="module")
def with_rows(catalogue: Catalogue, folder: Path) -> Catalogue:
    """A VAE of SDXL's architecture with other weights, a tiny one, and one whose weights are not all there."""
    own = diffusers.AutoencoderKL.load_config(checkpoint_of(catalogue, "sdxl") / "vae")
    other = seeded(lambda: diffusers.AutoencoderKL.from_config(own), seed=3)
    other.save_pretrained(folder / "other")
    channels = (8, 8, 8, 8)
    seeded(
        lambda: diffusers.AutoencoderTiny(encoder_block_out_channels=channels, decoder_block_out_channels=channels)
    ).save_pretrained(folder / "tiny")
    (folder / "empty").mkdir()
    (folder / "empty" / "config.json").write_text((folder / "other" / "config.json").read_text())
    rows = tuple(VaeSpec(id=id, family="sdxl", source=str(folder / id)) for id in ("other", "tiny", "empty"))
    return with_vaes(catalogue.model_copy(update={"vaes": rows}))


@pytest.fixture(scope="module")
def vae_pool(with_rows: Catalogue) -> Pool:
    return Pool(with_rows, device="cpu")


@pytest.mark.parametrize(("vae", "mode"), [("other", Mode.IMG2IMG), *[("tiny", Mode.TXT2IMG)] * ALL])
def test_images_are_those_of_diffusers_with_this_vae_and_the_receipt_has_its_hash(
    vae: str, mode: Mode, with_rows: Catalogue, vae_pool: Pool, folder: Path, storage: Storage
) -> None:
    class_name = "AutoencoderTiny" if vae == "tiny" else "AutoencoderKL"
    module = getattr(diffusers, class_name).from_pretrained(folder / vae)
    name = "StableDiffusionXLImg2ImgPipeline" if mode is Mode.IMG2IMG else "StableDiffusionXLPipeline"
    pipeline = getattr(diffusers, name).from_pretrained(
        checkpoint_of(with_rows, "sdxl"), vae=module, dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    start = {"image": INPUT_IMAGES["inputs/image.png"], "strength": 1.0} if mode is Mode.IMG2IMG else {}
    size = {} if start else {"width": 64, "height": 64}
    bare = pipeline(
        prompt="a red circle", num_inference_steps=2, guidance_scale=3.0, **start, **size,
        generator=torch.Generator("cpu").manual_seed(7),
    ).images[0]  # fmt: skip

    fields: dict[str, Any] = {"strength": 1.0} if start else {}
    own = make_job(with_rows, "sdxl", mode, num_inference_steps=2, **fields)
    job = make_job(with_rows, "sdxl", mode, num_inference_steps=2, vae=vae, **fields)
    before = generate_pixels(own, vae_pool, storage)
    files, receipt = complete_job(job, vae_pool, storage)

    assert np.array_equal(decode_pixels(files[0]), np.asarray(bare, dtype=np.int16))
    assert receipt.vae is not None
    assert receipt.vae.sha256 == ContentHasher().hash(folder / vae / WEIGHTS)
    assert receipt.placement[f"vae:{vae}"] == "cpu"
    files, receipt = complete_job(own, vae_pool, storage)
    assert np.array_equal(decode_pixels(files[0]), before)
    assert receipt.vae is None
    assert f"vae:{vae}" not in receipt.placement


def test_jobs_with_different_vaes_share_steps_and_each_is_decoded_by_its_own(
    with_rows: Catalogue, vae_pool: Pool, storage: Storage
) -> None:
    jobs = [
        make_job(with_rows, "sdxl", num_inference_steps=2, seed=seed, vae=vae, batchable=True)
        for seed, vae in enumerate([None, "other", "tiny"])
    ]
    alone = [generate_pixels(job, vae_pool, storage) for job in jobs]

    results = run_jobs(jobs, vae_pool, storage)

    for result, expected in zip(results, alone, strict=True):
        assert np.abs(decode_pixels(storage.read(result.stored[0].key)) - expected).max() <= 1
        assert result.receipt.joined


def test_a_plan_counts_the_vae_beside_the_model(with_rows: Catalogue, vae_pool: Pool) -> None:
    job = make_job(with_rows, "sdxl", vae="other")
    plain = make_job(with_rows, "sdxl")

    chosen, usual = (vae_pool.plan_selector.choose(one, 1) for one in (job, plain))

    (part,) = [part for part in chosen.components if part.name == "vae:other"]
    own = next(part for part in chosen.components if part.name == "vae")
    assert (part.role, part.bytes) == (Role.VAE, own.bytes)
    assert chosen.peak_bytes >= usual.peak_bytes + part.bytes


def test_an_image_with_a_vae_and_a_third_pass_is_the_same_where_weights_move(
    with_rows: Catalogue, vae_pool: Pool, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(with_rows, "sdxl", num_inference_steps=2, vae="other", guidance={"kind": "pag"})
    resident, _ = complete_job(job, vae_pool, storage)
    usual = vae_pool.plan_selector.choose(job, 1)
    moved = {"unet": Placement.STREAMED, "vae": Placement.ON_DEMAND, "vae:other": Placement.ON_DEMAND}
    parts = [
        part.model_copy(update={"placement": moved.get(part.name, part.placement)}) for part in usual.components
    ]
    plan = usual.model_copy(update={"components": tuple(parts)})
    monkeypatch.setattr(vae_pool.plan_selector, "choose_in", lambda *_: plan)

    files, receipt = complete_job(job, vae_pool, storage)

    assert files == resident
    assert {name: receipt.placement[name] for name in moved} == moved


def test_a_vae_without_weights_fails_its_job_with_the_reason(
    with_rows: Catalogue, vae_pool: Pool, storage: Storage
) -> None:
    error = fail_job(make_job(with_rows, "sdxl", vae="empty"), vae_pool, storage)

    assert error.code is FailureCode.MODEL_LOAD_FAILED
    assert "empty" in error.message


def test_a_vae_of_a_model_s_row_is_used_where_a_request_names_none(
    with_rows: Catalogue, storage: Storage, vae_pool: Pool
) -> None:
    models = tuple(
        row.model_copy(update={"vae": "other"}) if row.id == "shapes-sdxl" else row for row in with_rows.models
    )
    by_default = with_rows.model_copy(update={"models": models})

    job = make_job(by_default, "sdxl", num_inference_steps=2)

    assert job.vae == "other"
    assert "vae:other" in job.needs
    with pytest.raises(InvalidRequest, match="works with sdxl models"):
        make_job(with_rows, "sd15", vae="other")
