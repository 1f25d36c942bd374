"""What each model family supports, as data: modes, fields, sizes, defaults. Does not import diffusers.

A test compares this table with the signatures of the pipelines (`tests/worker/families/`).
The entries of a row are explained in `family.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from contracts.catalogue.family import (
    Family,
    LongPrompt,
    Mode,
    StepCacheSchedule,
    Task,
    TextEncoder,
    mode_of,
    modes_of,
    task_of,
)
from contracts.catalogue.family_rows.classes import DIT
from contracts.catalogue.family_rows.flux2 import FLUX2
from contracts.catalogue.family_rows.language_models import (
    KOLORS,
    LUMINA2,
    OVIS_IMAGE,
    SANA,
    Z_IMAGE,
)
from contracts.catalogue.family_rows.mode_fields import (
    CONTROL_IMAGE,
    CONTROLS,
    GUIDANCE,
    HIRES,
    IMAGE,
    IMAGE_PROMPTS,
    INVERSIONS,
    MASK,
    REFERENCES,
    RESCALE,
    TRUE_CFG,
)
from contracts.catalogue.family_rows.pixels import DEEPFLOYD
from contracts.catalogue.family_rows.qwen import QWEN_IMAGE
from contracts.catalogue.family_rows.sdxl import SDXL
from contracts.catalogue.family_rows.t5 import AURA_FLOW, CHROMA, FLUX_LAYERS, HUNYUANDIT, PIXART
from contracts.catalogue.references import References

__all__ = [
    "ALL_FAMILIES",
    "FAMILIES",
    "MODE_FIELDS",
    "Family",
    "LongPrompt",
    "Mode",
    "StepCacheSchedule",
    "Task",
    "TextEncoder",
    "mode_of",
    "modes_of",
    "task_of",
]

_SD15_TEXT = INVERSIONS | GUIDANCE | {"negative_prompt", "clip_skip"}
_SD3_TEXT = GUIDANCE | {"prompt_2", "prompt_3", "negative_prompt", "clip_skip", "max_sequence_length"}
_FLUX_TEXT = INVERSIONS | IMAGE_PROMPTS | {"prompt_2", "max_sequence_length"}
_GUIDED_FLUX = TRUE_CFG | GUIDANCE

_SD15 = Family(
    id="sd15",
    kind="diffusion",
    pipeline="StableDiffusionPipeline",
    more_pipelines=("LatentConsistencyModelPipeline",),
    controlnet="ControlNetModel",
    modes={
        Mode.TXT2IMG: _SD15_TEXT | IMAGE_PROMPTS | RESCALE | HIRES,
        Mode.IMG2IMG: _SD15_TEXT | IMAGE_PROMPTS | IMAGE,
        Mode.INPAINT: _SD15_TEXT | IMAGE_PROMPTS | MASK,
        Mode.CONTROLNET: _SD15_TEXT | IMAGE_PROMPTS | CONTROLS,
        Mode.CONTROLNET_IMG2IMG: _SD15_TEXT | IMAGE_PROMPTS | CONTROLS | IMAGE,
        Mode.CONTROLNET_INPAINT: _SD15_TEXT | IMAGE_PROMPTS | CONTROLS | MASK,
    },
    size_multiple=8,
    t2i_multiple=8,
    max_pixels=2048 * 2048,
    defaults={
        "width": 512, "height": 512, "num_inference_steps": 25, "guidance_scale": 7.5,
        "guidance_rescale": 0.0, "scheduler": "dpmpp_2m", "long_prompt": "chunk",
    },
    denoiser_layers=r"(down|up|input|output)_blocks_|mid(dle)?_block_|conv_(in|out)|time_emb|out_",
    guidance_kinds=("apg", "cfg_zero", "pag"),
    lora_text_encoders=frozenset({"text_encoder"}),
    inversion_encoders=MappingProxyType({"text_encoder": "clip_l"}),
    context_widths=frozenset({768, 1024}),
    text_encoders=(TextEncoder("text_encoder", "tokenizer", "prompt", "clip", final_norm=True),),
)  # fmt: skip

_SD3 = Family(
    id="sd3",
    kind="flow",
    pipeline="StableDiffusion3Pipeline",
    controlnet="SD3ControlNetModel",
    modes={
        Mode.TXT2IMG: _SD3_TEXT | HIRES,
        Mode.IMG2IMG: _SD3_TEXT | IMAGE,
        Mode.INPAINT: _SD3_TEXT | MASK,
        Mode.CONTROLNET: _SD3_TEXT | CONTROLS,
        # The pipeline starts from pure noise, guided by its ControlNet, so it has neither strength nor crop.
        Mode.CONTROLNET_INPAINT: _SD3_TEXT | CONTROLS | {"image", "mask_image", "mask_blur"},
    },
    size_multiple=16,
    max_pixels=2048 * 2048,
    defaults={
        "width": 1024, "height": 1024, "num_inference_steps": 28, "guidance_scale": 7.0,
        "max_sequence_length": 256, "scheduler": "flow_euler", "long_prompt": "chunk",
    },
    denoiser_layers=r"transformer_blocks_|pos_embed|context_embedder|time_text_embed|norm_out|proj_out",
    lora_text_encoders=frozenset({"text_encoder", "text_encoder_2"}),
    max_sequence_length=512,
    guidance_kinds=("apg", "cfg_zero", "slg"),
    inpaint_control_only=True,
    controls_encoded_once=frozenset({Mode.CONTROLNET_INPAINT}),
    t5_optional=True,
    gguf=True,
    text_encoders=(
        TextEncoder("text_encoder", "tokenizer", "prompt", "clip"),
        TextEncoder("text_encoder_2", "tokenizer_2", "prompt_2", "clip"),
        TextEncoder("text_encoder_3", "tokenizer_3", "prompt_3", "t5"),
    ),
)  # fmt: skip

_FLUX = Family(
    id="flux",
    kind="flow",
    pipeline="FluxPipeline",
    controlnet="FluxControlNetModel",
    union="FluxControlNetModel",
    image_tokens_follow_prompt=True,
    modes={
        Mode.TXT2IMG: _FLUX_TEXT | _GUIDED_FLUX | HIRES,
        Mode.IMG2IMG: _FLUX_TEXT | _GUIDED_FLUX | IMAGE,
        Mode.INPAINT: _FLUX_TEXT | _GUIDED_FLUX | MASK,
        Mode.CONTROLNET: _FLUX_TEXT | _GUIDED_FLUX | CONTROLS,
        Mode.CONTROLNET_IMG2IMG: _FLUX_TEXT | CONTROLS | IMAGE,
        Mode.CONTROLNET_INPAINT: _FLUX_TEXT | CONTROLS | MASK,
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
    _FLUX,
    id="flux-kontext",
    pipeline="FluxKontextPipeline",
    modes={
        Mode.TXT2IMG: _FLUX_TEXT | _GUIDED_FLUX,
        # Without another reference, the image itself is it.
        Mode.INPAINT: _FLUX_TEXT | _GUIDED_FLUX | MASK,
        Mode.EDIT: _FLUX_TEXT | _GUIDED_FLUX | REFERENCES,
        Mode.EDIT_INPAINT: _FLUX_TEXT | _GUIDED_FLUX | REFERENCES | MASK,
    },
    defaults={**_FLUX.defaults, "guidance_scale": 2.5},
    references=References(
        max_count=1,
        meaning="The picture that `prompt` changes, or whose subject it shows in another way.",
    ),
    reads_image_as_reference=True,
)
#: FLUX.1 Fill: the masked image and the mask are further channels, so that it can only inpaint.
_FLUX_FILL = replace(
    _FLUX,
    id="flux-fill",
    pipeline="FluxFillPipeline",
    modes={Mode.INPAINT: _FLUX_TEXT | MASK},
    defaults={
        **{name: value for name, value in _FLUX.defaults.items() if name != "true_cfg_scale"},
        "num_inference_steps": 50, "guidance_scale": 30.0, "strength": 1.0,
    },
    denoiser_channels=384,
)  # fmt: skip
#: FLUX.1 Canny and Depth: the control image is further channels, so that nothing is generated without one.
_FLUX_CONTROL = replace(
    _FLUX,
    id="flux-control",
    pipeline="FluxControlPipeline",
    modes={
        Mode.TXT2IMG: _FLUX_TEXT | CONTROL_IMAGE | HIRES,
        Mode.IMG2IMG: _FLUX_TEXT | CONTROL_IMAGE | IMAGE,
        Mode.INPAINT: _FLUX_TEXT | CONTROL_IMAGE | MASK,
    },
    # Canny's; Depth was published with a guidance of 10.
    defaults={**_FLUX_FILL.defaults, "strength": 0.6},
    required_fields=frozenset({"control_image"}),
    starts_from_latents=False,
    denoiser_channels=128,
)
_FLUX = replace(
    _FLUX,
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

_ROWS = (
    SDXL, _SD3, _FLUX, _SD15, PIXART, CHROMA, Z_IMAGE, QWEN_IMAGE, FLUX2, LUMINA2, SANA, HUNYUANDIT,
    KOLORS, OVIS_IMAGE, DEEPFLOYD, DIT, AURA_FLOW,
)  # fmt: skip
#: The families that a row of the catalogue may name.
FAMILIES: Mapping[str, Family] = MappingProxyType({row.id: row for row in _ROWS})
#: The same, and those of their other checkpoints, each under its own id.
ALL_FAMILIES: Mapping[str, Family] = MappingProxyType(
    {row.id: row for family in FAMILIES.values() for row in (family, *family.other_checkpoints.values())}
)

#: Request fields that depend on family and mode: those in any row above. All others are always valid.
MODE_FIELDS: frozenset[str] = frozenset().union(
    *(fields for family in ALL_FAMILIES.values() for fields in family.modes.values())
)
