"""A tiny VAE (TAESD) that makes the previews of a model: as diffusers decodes, planned for, without a trace."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from contracts.catalogue.catalogue import Catalogue, VaeSpec
from contracts.jobs.events import Preview
from contracts.jobs.failures import FailureCode
from contracts.memory.plan import Placement
from contracts.memory.sizes.component import Role
from contracts.storage import Storage
from contracts.weights.vae_files import WEIGHTS, with_vaes
from tests.support.adapters import checkpoint_of
from tests.support.jobs import RecordingWatch, complete_job, fail_job, make_job, model_of, run_jobs
from tests.support.untrained_parts import seeded
from worker.checkpoints.files import ContentHasher
from worker.pool.pool import Pool
from worker.sampling.previews import decode_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny VAE with random weights."""
    folder = tmp_path_factory.mktemp("vaes") / "tiny"
    channels = (8, 8, 8, 8)
    seeded(
        lambda: diffusers.AutoencoderTiny(encoder_block_out_channels=channels, decoder_block_out_channels=channels)
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def with_row(catalogue: Catalogue, tiny: Path) -> Catalogue:
    """The catalogue whose SDXL has its previews made by the tiny VAE."""
    id = model_of(catalogue, "sdxl")
    models = tuple(
        row.model_copy(update={"preview_vae": "tiny"}) if row.id == id else row for row in catalogue.models
    )
    vaes = (VaeSpec(id="tiny", family="sdxl", source=str(tiny)),)
    return with_vaes(catalogue.model_copy(update={"models": models, "vaes": vaes}))


@pytest.fixture(scope="module")
def preview_pool(with_row: Catalogue) -> Pool:
    return Pool(with_row, device="cpu")


def pixels_of(preview: Preview) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    with Image.open(io.BytesIO(base64.b64decode(preview.url.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB"), dtype=np.int16)


def test_pixels_are_exactly_those_of_diffusers_for_the_same_latents(tiny: Path) -> None:
    vae = diffusers.AutoencoderTiny.from_pretrained(tiny)
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))

    with torch.inference_mode():
        pixels = decode_tiny(vae, latents)
        images = diffusers.image_processor.VaeImageProcessor().postprocess(vae.decode(latents).sample)

    for own, image in zip(pixels.numpy(), images, strict=True):
        assert np.array_equal(own, np.asarray(image))


def test_a_preview_is_what_the_tiny_vae_decodes_and_the_image_stays_the_same(
    with_row: Catalogue, preview_pool: Pool, tiny: Path, storage: Storage
) -> None:
    watch = RecordingWatch()
    job = make_job(with_row, "sdxl", num_inference_steps=2, previews=1, num_images=2)
    (result,) = run_jobs(job, preview_pool, storage, watch)
    plain, receipt_without = complete_job(
        make_job(with_row, "sdxl", num_inference_steps=2, num_images=2), preview_pool, storage
    )

    assert [storage.read(one.key) for one in result.stored] == plain
    assert result.receipt.preview_vae is not None
    assert result.receipt.preview_vae.sha256 == ContentHasher().hash(tiny / WEIGHTS)
    assert result.receipt.placement["preview_vae:tiny"] == "cpu"
    assert receipt_without.preview_vae is None
    assert "preview_vae:tiny" not in receipt_without.placement
    vae = diffusers.AutoencoderTiny.from_pretrained(tiny)
    for seed, (_, preview) in enumerate(watch.previews, start=job.seed):
        estimate = first_estimate(with_row, seed)
        with torch.inference_mode():
            decoded = vae.decode(estimate).sample[0].permute(1, 2, 0) / 2 + 0.5
        difference = np.abs(pixels_of(preview) - (decoded.clamp(0, 1) * 255).numpy())
        assert difference.mean() < 6  # of JPEG
    assert len(watch.previews) == 2


def first_estimate(catalogue: Catalogue, seed: int) -> torch.Tensor:
    """The denoised latents that diffusers' own pipeline predicts in the first of two steps."""
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(
        checkpoint_of(catalogue, "sdxl"), dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    found: list[torch.Tensor] = []
    step = pipeline.scheduler.step

    def record(output: torch.Tensor, timestep: torch.Tensor, sample: torch.Tensor, **named: object) -> object:
        found.append(step(output, timestep, sample, **{**named, "return_dict": True}).pred_original_sample)
        pipeline.scheduler._step_index -= 1
        return step(output, timestep, sample, **named)

    pipeline.scheduler.step = record
    pipeline(
        prompt="a red circle", num_inference_steps=2, guidance_scale=3.0, width=64, height=64,
        generator=torch.Generator("cpu").manual_seed(seed), output_type="latent",
    )  # fmt: skip
    return found[0]


def test_a_plan_counts_it_beside_the_denoiser_and_a_job_without_previews_needs_none(
    with_row: Catalogue, preview_pool: Pool
) -> None:
    job, without = (make_job(with_row, "sdxl", previews=count) for count in (2, 0))
    assert ("vae:tiny" in job.needs, "vae:tiny" in without.needs) == (True, False)
    preview_pool.ready(job, 1)

    chosen, usual = (preview_pool.plan_selector.choose(one, 1) for one in (job, without))

    (part,) = [part for part in chosen.components if part.name == "preview_vae:tiny"]
    assert (part.role, part.placement) == (Role.PREVIEW_VAE, Placement.DEVICE)
    assert part.bytes > 0
    assert chosen.stage_bytes["denoise"] >= usual.stage_bytes["denoise"] + part.bytes
    assert [part.name for part in usual.components if part.role is Role.PREVIEW_VAE] == []


def test_a_vae_of_another_class_that_comes_from_a_hub_fails_the_job_by_name(
    with_row: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    """Its class is not known when the service starts."""
    own = diffusers.AutoencoderKL.from_pretrained(checkpoint_of(with_row, "sdxl") / "vae")
    own.save_pretrained(tmp_path / "usual")
    rows = (VaeSpec(id="tiny", family="sdxl", source=str(tmp_path / "usual")),)
    wrong = with_row.model_copy(update={"vaes": rows})

    error = fail_job(make_job(wrong, "sdxl", previews=1), Pool(wrong, device="cpu"), storage)

    assert error.code is FailureCode.MODEL_LOAD_FAILED
    assert "previews are made by an AutoencoderTiny" in error.message
