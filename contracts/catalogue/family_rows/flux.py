"""FLUX.1 dev and schnell, and its Kontext, Fill, Canny and Depth."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from contracts.catalogue.family import Family, Mode, TextEncoder
from contracts.catalogue.family_parts import (
    CONTROL_IMAGE,
    CONTROLS,
    FLUX_LAYERS,
    GUIDANCE,
    HIRES,
    IMAGE,
    IMAGE_PROMPTS,
    INVERSIONS,
    MASK,
    REFERENCES,
    TRUE_CFG,
)
from contracts.catalogue.references import References

_TEXT = INVERSIONS | IMAGE_PROMPTS | {"prompt_2", "max_sequence_length"}
_GUIDED = TRUE_CFG | GUIDANCE

FAMILY = Family(
    id="flux",
    kind="flow",
    pipeline="FluxPipeline",
    controlnet="FluxControlNetModel",
    union="FluxControlNetModel",
    image_tokens_follow_prompt=True,
    modes={
        Mode.TXT2IMG: _TEXT | _GUIDED | HIRES,
        Mode.IMG2IMG: _TEXT | _GUIDED | IMAGE,
        Mode.INPAINT: _TEXT | _GUIDED | MASK,
        Mode.CONTROLNET: _TEXT | _GUIDED | CONTROLS,
        Mode.CONTROLNET_IMG2IMG: _TEXT | CONTROLS | IMAGE,
        Mode.CONTROLNET_INPAINT: _TEXT | CONTROLS | MASK,
    },
    size_multiple=16,
    max_pixels=2048 * 2048,
    defaults={
        "width": 1024, "height": 1024, "num_inference_steps": 28, "guidance_scale": 3.5,
        "true_cfg_scale": 1.0, "max_sequence_length": 512, "scheduler": "flow_euler",
        # Its CLIP gives one vector of the first window, and T5 has no windows.
        "long_prompt": "truncate",
    },
    denoiser_layers=FLUX_LAYERS,
    lora_text_encoders=frozenset({"text_encoder"}),
    inversion_encoders=MappingProxyType({"text_encoder": "clip_l"}),
    max_sequence_length=512,
    negative_needs_true_cfg=True,
    guidance_kinds=("apg", "cfg_zero"),
    text_encoders=(
        TextEncoder("text_encoder", "tokenizer", "prompt", "clip", pooled_only=True),
        TextEncoder("text_encoder_2", "tokenizer_2", "prompt_2", "t5"),
    ),
    long_prompts=("truncate", "refuse"),
    gguf=True,
)  # fmt: skip

#: FLUX.1 Kontext: the same transformer, trained to be given reference images behind the noise.
_FLUX_KONTEXT = replace(
    FAMILY,
    id="flux-kontext",
    pipeline="FluxKontextPipeline",
    modes={
        Mode.TXT2IMG: _TEXT | _GUIDED,
        # Without another reference, the image itself is it.
        Mode.INPAINT: _TEXT | _GUIDED | MASK,
        Mode.EDIT: _TEXT | _GUIDED | REFERENCES,
        Mode.EDIT_INPAINT: _TEXT | _GUIDED | REFERENCES | MASK,
    },
    defaults={**FAMILY.defaults, "guidance_scale": 2.5},
    references=References(
        max_count=1,
        meaning="The image that `prompt` changes, or whose subject it shows in another way.",
    ),
    reads_image_as_reference=True,
)
#: FLUX.1 Fill: the masked image and the mask are further channels, so that it can only inpaint.
_FLUX_FILL = replace(
    FAMILY,
    id="flux-fill",
    pipeline="FluxFillPipeline",
    modes={Mode.INPAINT: _TEXT | MASK},
    defaults={
        **{name: value for name, value in FAMILY.defaults.items() if name != "true_cfg_scale"},
        "num_inference_steps": 50, "guidance_scale": 30.0, "strength": 1.0,
    },
    denoiser_channels=384,
)  # fmt: skip
#: FLUX.1 Canny and Depth: the control image is further channels, so that nothing is generated without one.
_FLUX_CONTROL = replace(
    FAMILY,
    id="flux-control",
    pipeline="FluxControlPipeline",
    modes={
        Mode.TXT2IMG: _TEXT | CONTROL_IMAGE | HIRES,
        Mode.IMG2IMG: _TEXT | CONTROL_IMAGE | IMAGE,
        Mode.INPAINT: _TEXT | CONTROL_IMAGE | MASK,
    },
    # Canny's; Depth was published with a guidance of 10.
    defaults={**_FLUX_FILL.defaults, "strength": 0.6},
    required_fields=frozenset({"control_image"}),
    starts_from_latents=False,
    denoiser_channels=128,
)
FAMILY = replace(
    FAMILY,
    other_checkpoints=MappingProxyType(
        {
            "FluxKontextPipeline": _FLUX_KONTEXT,
            "FluxKontextInpaintPipeline": _FLUX_KONTEXT,
            "FluxFillPipeline": _FLUX_FILL,
            "FluxControlPipeline": _FLUX_CONTROL,
            "FluxControlImg2ImgPipeline": _FLUX_CONTROL,
            "FluxControlInpaintPipeline": _FLUX_CONTROL,
        }
    ),
    with_control_lora=_FLUX_CONTROL.pipeline,
)
