"""Other guidance than plain: equal to diffusers' guiders in bare scripts, alone and in company, in every mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.guiders import (
    AdaptiveProjectedGuidance,
    ClassifierFreeZeroStarGuidance,
    PerturbedAttentionGuidance,
)
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer
from diffusers.hooks import LayerSkipConfig

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import ALL_FAMILIES, Mode
from contracts.storage import Storage
from tests.support.adapters import checkpoint_of
from tests.support.combinations import ALL
from tests.support.jobs import complete_job, decode_pixels, generate_pixels, make_job, run_jobs
from worker.pool.pool import Pool

STEPS = 2
PROMPT, NEGATIVE = "a red circle", "blue"
#: Every kind, as a request may have it, that acts in so few steps.
REQUESTS: dict[str, dict[str, Any]] = {
    "apg": {"kind": "apg", "norm_threshold": 5},
    "cfg_zero": {"kind": "cfg_zero"},
    "pag": {"kind": "pag"},
    "slg": {"kind": "slg", "start": 0, "stop": 1, "layers": [1]},
}


def _guided_by(guider: Any, pipeline: Any) -> Any:
    """Have a guider guide a stock pipeline with both passes in one call, as its documentation says it is used."""
    unet, forward, step = pipeline.unet, pipeline.unet.forward, iter(range(STEPS))

    def guided(sample: torch.Tensor, timestep: Any, **more: Any) -> Any:
        guider.set_state(next(step), STEPS, timestep)
        if isinstance(guider, AdaptiveProjectedGuidance) and guider._step == 0:
            guider.momentum_buffer = MomentumBuffer(guider.adaptive_projected_guidance_momentum)
        (both,) = forward(sample, timestep, **more)
        without, with_prompt = both.chunk(2)
        passes = {"pred_cond": with_prompt, "pred_uncond": without}
        if guider.num_conditions == 3:
            for _ in range(3):
                guider.prepare_models(unet)
            half = {name: _second_half(value) for name, value in more.items()}
            (passes["pred_cond_skip"],) = forward(sample.chunk(2)[1], timestep, **half)
            guider.cleanup_models(unet)
        prediction = guider.forward(**passes).pred
        return (torch.cat([prediction, prediction]),)

    unet.forward = guided
    return pipeline


def _second_half(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.chunk(2)[1]
    return {name: _second_half(item) for name, item in value.items()} if isinstance(value, dict) else value


GUIDERS: dict[str, Callable[[], Any]] = {
    "apg": lambda: AdaptiveProjectedGuidance(
        5.0,
        adaptive_projected_guidance_momentum=-0.5,
        adaptive_projected_guidance_rescale=5.0,
        eta=0.0,
        guidance_rescale=0.4,
    ),
    "cfg_zero": lambda: ClassifierFreeZeroStarGuidance(5.0, zero_init_steps=1),
    "pag": lambda: PerturbedAttentionGuidance(
        5.0,
        perturbed_guidance_scale=3.0,
        perturbed_guidance_start=0.0,
        perturbed_guidance_stop=1.0,
        perturbed_guidance_config=LayerSkipConfig(
            [0], "mid_block.attentions.0.transformer_blocks", skip_attention=False, skip_attention_scores=True,
            skip_ff=False,
        ),
        guidance_rescale=0.4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", GUIDERS if ALL else ["apg", "pag"])
def test_an_image_is_that_of_a_bare_script_with_the_guider_of_diffusers(
    kind: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    folder = checkpoint_of(catalogue, "sdxl")
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    bare = _guided_by(GUIDERS[kind](), pipeline)(
        prompt=PROMPT, negative_prompt=NEGATIVE, num_inference_steps=STEPS, guidance_scale=5.0, height=64,
        width=64, generator=torch.Generator("cpu").manual_seed(7),
    ).images[0]  # fmt: skip

    rescale: dict[str, Any] = {} if kind == "cfg_zero" else {"guidance_rescale": 0.4}
    fields: dict[str, Any] = {"guidance_scale": 5.0, **rescale, "negative_prompt": NEGATIVE, "prompt": PROMPT}
    job = make_job(catalogue, "sdxl", num_inference_steps=STEPS, guidance=REQUESTS[kind], **fields)
    made = generate_pixels(job, pool, storage)

    assert np.array_equal(made, np.asarray(bare, dtype=np.int16))
    assert not np.array_equal(made, generate_pixels(make_job(catalogue, "sdxl", **fields), pool, storage))


def test_skipped_layers_are_those_that_diffusers_skips_in_sd3(
    trained: Catalogue, trained_pool: Pool, storage: Storage
) -> None:
    pipeline = diffusers.StableDiffusion3Pipeline.from_pretrained(
        checkpoint_of(trained, "sd3"), dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    bare = pipeline(
        prompt=PROMPT, negative_prompt=NEGATIVE, num_inference_steps=STEPS, guidance_scale=4.0, height=64,
        width=64, max_sequence_length=64, skip_guidance_layers=[1, 2], skip_layer_guidance_scale=2.0,
        skip_layer_guidance_start=0.0, skip_layer_guidance_stop=1.0,
        generator=torch.Generator("cpu").manual_seed(7),
    ).images[0]  # fmt: skip

    guidance = {"kind": "slg", "layers": [2, 1], "scale": 2, "start": 0, "stop": 1}
    job = make_job(
        trained, "sd3", prompt=PROMPT, negative_prompt=NEGATIVE, num_inference_steps=STEPS, guidance_scale=4.0,
        guidance=guidance,
    )  # fmt: skip

    assert np.array_equal(generate_pixels(job, trained_pool, storage), np.asarray(bare, dtype=np.int16))


#: Passes as rows of a call, and as calls of their own, with and without ControlNets; `make judge` has all modes.
SOME_MODES = [
    ("sdxl", Mode.CONTROLNET_INPAINT),
    ("flux", Mode.CONTROLNET),
]
ALL_MODES = [
    (family.id, mode)
    for family in ALL_FAMILIES.values()
    for mode, fields in family.modes.items()
    if "guidance" in fields
]


@pytest.mark.parametrize(("family", "mode"), ALL_MODES if ALL else SOME_MODES)
def test_projected_guidance_that_takes_nothing_away_is_plain_guidance_in_every_mode(
    family: str, mode: Mode, flux_tools: Catalogue, tools_pool: Pool, storage: Storage
) -> None:
    fields: dict[str, Any] = {"num_inference_steps": STEPS}
    if ALL_FAMILIES[family].negative_needs_true_cfg:
        fields |= {"true_cfg_scale": 2.0}
    plain = make_job(flux_tools, family, mode, **fields)
    nothing_away = {"kind": "apg", "momentum": 0, "eta": 1, "norm_threshold": 0}
    projected = make_job(flux_tools, family, mode, guidance=nothing_away, **fields)

    difference = generate_pixels(plain, tools_pool, storage) - generate_pixels(projected, tools_pool, storage)

    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"] if ALL else ["sdxl"])
def test_jobs_with_and_without_guidance_share_calls_and_get_the_images_they_get_alone(
    family: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    own: dict[str, Any] = {"true_cfg_scale": 2.0} if ALL_FAMILIES[family].negative_needs_true_cfg else {}
    kinds = ALL_FAMILIES[family].guidance_kinds
    variants: list[dict[str, Any]] = [
        {"guidance_scale": 2.0},
        *({"guidance": REQUESTS[kind]} for kind in kinds),
        {"guidance": {**REQUESTS[kinds[-1]], "start": 0.25}, "loras": [{"name": f"{family}-lora"}]},
    ]
    jobs = [
        make_job(
            catalogue,
            family,
            seed=seed,
            batchable=True,
            num_inference_steps=STEPS,
            num_images=1 + (seed == 1),
            **{**own, **fields},
        )
        for seed, fields in enumerate(variants)
    ]
    alone = [decode_pixels(complete_job(job, pool, storage)[0][-1]) for job in jobs]

    results = run_jobs(jobs, pool, storage)

    for result, expected in zip(results, alone, strict=True):
        shown = decode_pixels(storage.read(result.stored[-1].key))
        assert np.abs(shown - expected).max() <= 1
        assert result.receipt.joined
    model = pool.model(jobs[0].model)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.denoiser.modules())
