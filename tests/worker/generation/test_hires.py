"""A job with a second pass equals, bit for bit, a script of two direct calls; and how it is counted and told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from contracts.catalogue.catalogue import Catalogue, UpscalerSpec
from contracts.catalogue.families import FAMILIES, Mode
from contracts.storage import Storage
from contracts.weights.networks import read_upscaler
from tests.support.bare_diffusers import make_pipeline
from tests.support.combinations import covering
from tests.support.jobs import RecordingWatch, complete_job, decode_pixels, make_job, model_of
from tests.support.upscalers import upscale_pixels, write_compact
from worker.checkpoints.networks import load_network
from worker.pool.pool import Pool

TEXTS = {"prompt": "a red circle", "negative_prompt": "a blue square"}
T5 = {"max_sequence_length": 64}
#: Family -> begin and end of its pipelines' classes, what both calls have beside texts, its scheduler.
RECIPES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "sd15": ("StableDiffusion", "Pipeline", {"guidance_scale": 3.0}, "euler"),
    "sdxl": ("StableDiffusionXL", "Pipeline", {"guidance_scale": 3.0}, "heun"),
    "sd3": ("StableDiffusion3", "Pipeline", {"guidance_scale": 3.0, **T5}, "flow_euler"),
    "flux": ("Flux", "Pipeline", {"guidance_scale": 3.0, **T5}, "flow_euler"),
    "chroma": ("Chroma", "Pipeline", {"guidance_scale": 3.0, **T5}, "flow_euler"),
    "z-image": ("ZImage", "Pipeline", {"guidance_scale": 3.0, **T5}, "flow_euler"),
    "qwen-image": ("QwenImage", "Pipeline", {"true_cfg_scale": 3.0, **T5}, "flow_euler"),
}
SCHEDULERS = {
    "euler": diffusers.EulerDiscreteScheduler,
    "heun": diffusers.HeunDiscreteScheduler,
    "flow_euler": diffusers.FlowMatchEulerDiscreteScheduler,
}
ROWS = [
    (family, upscaler)
    for family in RECIPES
    for upscaler in ("lanczos", "latent", "double")
    if upscaler != "latent" or FAMILIES[family].starts_from_latents
]
#: Its pipeline takes no negative prompt without a second guidance scale.
NO_NEGATIVE = {"flux"}


@pytest.fixture(scope="module")
def doubled(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """The catalogue with an upscaler that doubles."""
    file = write_compact(tmp_path_factory.mktemp("upscaler") / "double.safetensors")
    row = UpscalerSpec(id="double", source=str(file), scale=2)
    return catalogue.model_copy(update={"upscalers": (row,)})


@pytest.fixture(scope="module")
def doubled_pool(doubled: Catalogue) -> Pool:
    """One pool for these tests."""
    return Pool(doubled, device="cpu")


def _texts(family: str) -> dict[str, str]:
    return {name: text for name, text in TEXTS.items() if name == "prompt" or family not in NO_NEGATIVE}


def _enlarge(latents: torch.Tensor, first: Any, family: str) -> Any:
    """What the first call returned as latents, 1.5 times as large, as the second call takes them."""
    if family in ("flux", "qwen-image"):
        latents = first._unpack_latents(latents, 64, 64, first.vae_scale_factor)
        latents = latents[:, :, 0] if family == "qwen-image" else latents
    return torch.nn.functional.interpolate(latents, scale_factor=1.5, mode="bilinear")


def _script(catalogue: Catalogue, family: str, upscaler: str, seeds: list[int], **second: Any) -> list[Any]:
    """The images of two direct calls, by a script that knows nothing of Darkroom but its upscaler's tiles."""
    begin, end, call, scheduler = RECIPES[family]
    folder = catalogue.root / catalogue.model(model_of(catalogue, family)).source
    first, larger = (make_pipeline(folder, f"{begin}{kind}{end}") for kind in ("", "Img2Img"))
    if family == "sd15":
        object.__setattr__(first.text_encoder, "text_model", first.text_encoder)
        object.__setattr__(larger.text_encoder, "text_model", larger.text_encoder)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    count = {"num_images_per_prompt": len(seeds), "generator": generators}
    for pipeline in (first, larger):
        pipeline.scheduler = SCHEDULERS[scheduler].from_config(pipeline.scheduler.config)
    both = {**_texts(family), **call, **count, "num_inference_steps": 2}
    size = {"width": 96, "height": 96} if family not in ("sd15", "sdxl") else {}
    output = "latent" if upscaler == "latent" else "pil"
    made = first(**both, width=64, height=64, output_type=output).images
    if upscaler == "latent":
        starts = _enlarge(made, first, family)
    else:
        images = [_double(image, catalogue) for image in made] if upscaler == "double" else made
        starts = [image.resize((96, 96), Image.Resampling.LANCZOS) for image in images]
    return [
        np.asarray(one) for one in larger(**{**both, **size, "image": starts, "strength": 0.5, **second}).images
    ]


def _double(image: Image.Image, catalogue: Catalogue) -> Image.Image:
    file, device = Path(catalogue.upscalers[0].source), torch.device("cpu")
    network = load_network(file, device, ("Compact",))
    with torch.inference_mode():
        return Image.fromarray(upscale_pixels(network, read_upscaler(file), np.asarray(image), 128, device))


def _job(catalogue: Catalogue, family: str, **fields: Any) -> Any:
    _, _, call, scheduler = RECIPES[family]
    size = {"num_inference_steps": 2, "width": 64, "height": 64}
    return make_job(catalogue, family, scheduler=scheduler, **{**_texts(family), **size, **call, **fields})


@pytest.mark.parametrize(("family", "upscaler"), covering(ROWS))
def test_images_of_a_second_pass_equal_those_of_two_calls(
    family: str, upscaler: str, doubled: Catalogue, doubled_pool: Pool, storage: Storage
) -> None:
    job = _job(doubled, family, hires={"scale": 1.5, "upscaler": upscaler})

    files, receipt = complete_job(job, doubled_pool, storage)

    assert np.array_equal(decode_pixels(files[0]), _script(doubled, family, upscaler, [7])[0])
    assert (receipt.upscaler is None) == (upscaler != "double")


def test_steps_strength_and_several_images_reach_the_second_call_with_one_progress(
    doubled: Catalogue, doubled_pool: Pool, storage: Storage
) -> None:
    hires = {"scale": 1.5, "upscaler": "latent", "strength": 0.7, "steps": 4}
    job = _job(doubled, "sd3", num_images=2, hires=hires)
    watch = RecordingWatch()

    files, receipt = complete_job(job, doubled_pool, storage, watch)

    theirs = _script(doubled, "sd3", "latent", [7, 8], strength=0.7, num_inference_steps=4)
    assert np.array_equal([decode_pixels(file) for file in files], theirs)
    # Of four steps, pipelines of this kind leave out the one whole one that a strength of 0.7 leaves.
    assert watch.seen == [(step, 5) for step in range(1, 6)]
    assert {"transformer", "hires:transformer"} <= receipt.placement.keys()
    assert receipt.timings.keys() >= {"upscale"}


def test_a_second_pass_leaves_no_trace_in_the_next_job(
    doubled: Catalogue, doubled_pool: Pool, storage: Storage
) -> None:
    plain = _job(doubled, "sd15")
    before = complete_job(plain, doubled_pool, storage)[0]
    complete_job(_job(doubled, "sd15", hires={"upscaler": "double"}), doubled_pool, storage)
    assert complete_job(plain, doubled_pool, storage)[0] == before


def test_the_plan_of_a_second_pass_is_that_of_its_size(doubled: Catalogue, doubled_pool: Pool) -> None:
    capacity = doubled_pool.plan_selector.capacity
    plans = [
        capacity.plan("sd15", job) for job in (_job(doubled, "sd15"), _job(doubled, "sd15", hires={"scale": 2.0}))
    ]
    assert all(plan is not None for plan in plans)
    small, large = (plan for plan in plans if plan is not None)
    assert large.peak_bytes > small.peak_bytes
    assert {"denoise", "hires:denoise"} <= large.stage_bytes.keys()
    assert _job(doubled, "sd15", hires={"scale": 2.0}).stages[-1].mode is Mode.IMG2IMG
