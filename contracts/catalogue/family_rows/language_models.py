"""Rows of `families.py` whose prompts are read by a language model, in a template that the pipelines add.

Those of Qwen-Image are in `qwen.py`.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from contracts.catalogue.family import Family, Mode, TextEncoder
from contracts.catalogue.family_rows.mode_fields import (
    CONTROLS,
    HIRES,
    IMAGE,
    IMAGE_PROMPTS,
    MASK,
    SEQUENCE_TEXT,
)
from contracts.catalogue.family_rows.sdxl import UNET_LAYERS

#: Z-Image and Z-Image-Turbo. Its guidance scale is 1 less than elsewhere: 0 guides nothing.
Z_IMAGE = Family(
    id="z-image",
    kind="flow",
    starts_from_latents=False,
    pipeline="ZImagePipeline",
    controlnet="ZImageControlNetModel",
    modes={
        Mode.TXT2IMG: SEQUENCE_TEXT | HIRES,
        Mode.IMG2IMG: SEQUENCE_TEXT | IMAGE,
        Mode.INPAINT: SEQUENCE_TEXT | MASK,
        Mode.CONTROLNET: SEQUENCE_TEXT | CONTROLS,
        # The pipeline starts from pure noise, guided by its ControlNet, so it has neither strength nor crop.
        Mode.CONTROLNET_INPAINT: SEQUENCE_TEXT | CONTROLS | {"image", "mask_image", "mask_blur"},
    },
    size_multiple=16,
    max_pixels=2048 * 2048,
    defaults={
        "width": 1024, "height": 1024, "num_inference_steps": 50, "guidance_scale": 4.0,
        "max_sequence_length": 512, "scheduler": "flow_euler", "long_prompt": "truncate",
    },
    guidance_off=0.0,
    # Turbo is published with this shift, the model that it was distilled from with 6.
    few_steps=({"shift": 3.0}, {"num_inference_steps": 8, "guidance_scale": 0.0}),
    denoiser_layers=r"layers_\d+_|(noise|context)_refiner_|all_(x_embedder|final_layer)|(cap|t)_embedder",
    lora_text_encoders=frozenset(),
    max_sequence_length=512,
    max_controls=1,
    controls_encoded_once=frozenset({Mode.CONTROLNET, Mode.CONTROLNET_INPAINT}),
    control_ranges=False,
    single_file=False,
    gguf=True,
    text_encoders=(TextEncoder("text_encoder", "tokenizer", "prompt", "llm", template_tokens=3),),
    long_prompts=("truncate", "refuse"),
)  # fmt: skip

#: Lumina-Image 2.0. Its table of positions has room for 299 tokens of a prompt.
LUMINA2 = Family(
    id="lumina2",
    kind="flow",
    pipeline="Lumina2Pipeline",
    controlnet="",
    modes={Mode.TXT2IMG: SEQUENCE_TEXT},
    size_multiple=16,
    max_pixels=2048 * 2048,
    defaults={
        "width": 1024, "height": 1024, "num_inference_steps": 30, "guidance_scale": 4.0,
        "max_sequence_length": 256, "scheduler": "flow_euler", "long_prompt": "truncate",
    },
    denoiser_layers=r"layers_\d+_|(noise|context)_refiner_|x_embedder|time_caption_embed|norm_out",
    lora_text_encoders=frozenset(),
    max_sequence_length=256,
    single_file=False,
    gguf=True,
    # The instruction before a prompt, and the token at the start.
    text_encoders=(TextEncoder("text_encoder", "tokenizer", "prompt", "llm", template_tokens=31),),
    long_prompts=("truncate", "refuse"),
)  # fmt: skip

#: Tokens of its instruction, which has 203 words and marks; some words are two.
_SANA_INSTRUCTION = 215
#: Sana. Its VAE has a stride of 32, and the transformer makes a token of each position.
SANA = Family(
    id="sana",
    kind="flow",
    pipeline="SanaPipeline",
    controlnet="SanaControlNetModel",
    modes={Mode.TXT2IMG: SEQUENCE_TEXT, Mode.CONTROLNET: SEQUENCE_TEXT | CONTROLS},
    size_multiple=32,
    max_pixels=2048 * 2048,
    defaults={
        "width": 1024, "height": 1024, "num_inference_steps": 20, "guidance_scale": 4.5,
        "max_sequence_length": 300, "scheduler": "flow_dpmpp_2m", "long_prompt": "truncate",
    },
    denoiser_layers=r"transformer_blocks_|patch_embed|caption_projection|time_embed|proj_out",
    lora_text_encoders=frozenset(),
    max_sequence_length=300,
    max_controls=1,
    control_ranges=False,
    single_file=False,
    gguf=True,
    # The token at the start, and the last one of the pipeline's instruction: its other tokens are cut off.
    text_encoders=(
        TextEncoder(
            "text_encoder", "tokenizer", "prompt", "llm", template_tokens=2, instruction_tokens=_SANA_INSTRUCTION
        ),
    ),
    long_prompts=("truncate", "refuse"),
)  # fmt: skip

_KOLORS_TEXT = frozenset({"negative_prompt", "original_size", "crops_coords_top_left", "target_size"})

#: Kolors: SDXL's UNet behind ChatGLM3. Its pipelines read 256 tokens, whatever `max_sequence_length` says.
KOLORS = Family(
    id="kolors",
    kind="diffusion",
    starts_from_latents=False,
    pipeline="KolorsPipeline",
    controlnet="",
    modes={
        Mode.TXT2IMG: _KOLORS_TEXT | IMAGE_PROMPTS,
        Mode.IMG2IMG: _KOLORS_TEXT | IMAGE_PROMPTS | IMAGE,
    },
    size_multiple=8,
    max_pixels=2048 * 2048,
    defaults={
        "width": 1024, "height": 1024, "num_inference_steps": 50, "guidance_scale": 5.0,
        "scheduler": "euler", "long_prompt": "truncate",
    },
    denoiser_layers=UNET_LAYERS,
    lora_text_encoders=frozenset(),
    single_file=False,
    text_encoders=(
        # The two tokens at the start.
        TextEncoder("text_encoder", "tokenizer", "prompt", "llm", template_tokens=2, max_tokens=256),
    ),
    long_prompts=("truncate", "refuse"),
)  # fmt: skip

#: Ovis-Image. Its pipeline puts an instruction before a prompt, which does not count, and cuts off so many tokens.
_OVIS_INSTRUCTION = 28
OVIS_IMAGE = Family(
    id="ovis-image",
    kind="flow",
    pipeline="OvisImagePipeline",
    controlnet="",
    modes={Mode.TXT2IMG: SEQUENCE_TEXT},
    size_multiple=16,
    max_pixels=2048 * 2048,
    defaults={
        "width": 1024, "height": 1024, "num_inference_steps": 50, "guidance_scale": 5.0,
        "max_sequence_length": 256, "scheduler": "flow_euler", "long_prompt": "truncate",
    },
    guides_in_turn=True,
    denoiser_layers="",
    lora_text_encoders=frozenset(),
    max_sequence_length=256,
    single_file=False,
    text_encoders=(
        TextEncoder("text_encoder", "tokenizer", "prompt", "llm", instruction_tokens=_OVIS_INSTRUCTION),
    ),
    long_prompts=("truncate", "refuse"),
)  # fmt: skip

_LENGTH = frozenset({"max_sequence_length"})
#: Sana-Sprint: distilled for one to four steps, with guidance as an input.
_SANA_SPRINT = replace(
    SANA,
    id="sana-sprint",
    kind="trigflow",
    more_kinds=(),
    starts_from_latents=False,
    pipeline="SanaSprintPipeline",
    controlnet="",
    modes={Mode.TXT2IMG: _LENGTH, Mode.IMG2IMG: _LENGTH | IMAGE},
    defaults={**SANA.defaults, "num_inference_steps": 2, "scheduler": "scm"},
    negative_needs_true_cfg=True,
)
SANA = replace(
    SANA,
    more_kinds=("trigflow",),
    other_checkpoints=MappingProxyType(
        {"SanaSprintPipeline": _SANA_SPRINT, "SanaSprintImg2ImgPipeline": _SANA_SPRINT}
    ),
)
