"""Rows of `families.py` whose prompts are read by a language model, in a template that the pipelines add."""

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
    REFERENCES,
    SEQUENCE_TEXT,
    TRUE_CFG,
)
from contracts.catalogue.family_rows.sdxl import UNET_LAYERS
from contracts.catalogue.references import References

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

_QWEN_TEXT = SEQUENCE_TEXT | TRUE_CFG

#: Tokens of their template that the pipelines cut off, of a prompt and of one with pictures.
_QWEN_TEMPLATE, _QWEN_EDIT_TEMPLATE = 34, 64
#: Qwen-Image. It is not distilled, so `true_cfg_scale` is its only guidance.
QWEN_IMAGE = Family(
    id="qwen-image",
    kind="flow",
    pipeline="QwenImagePipeline",
    controlnet="QwenImageControlNetModel",
    modes={
        Mode.TXT2IMG: _QWEN_TEXT | HIRES,
        Mode.IMG2IMG: _QWEN_TEXT | IMAGE,
        Mode.INPAINT: _QWEN_TEXT | MASK,
        Mode.CONTROLNET: _QWEN_TEXT | CONTROLS,
        # The pipeline starts from pure noise, guided by its ControlNet, so it has neither strength nor crop.
        Mode.CONTROLNET_INPAINT: _QWEN_TEXT | CONTROLS | {"image", "mask_image", "mask_blur"},
    },
    size_multiple=16,
    max_pixels=2048 * 2048,
    defaults={
        "width": 1328, "height": 1328, "num_inference_steps": 50, "true_cfg_scale": 4.0,
        "max_sequence_length": 512, "scheduler": "flow_euler", "long_prompt": "truncate",
    },
    refuses=("guidance_scale",),
    negative_needs_true_cfg=True,
    inpaint_control_only=True,
    max_controls=1,
    denoiser_layers=(
        r"transformer_blocks_\d+_(attn|img_mlp|img_mod|txt_mlp|txt_mod)|(img|txt)_in|txt_norm|time_text_embed|"
        r"norm_out|proj_out"
    ),
    lora_text_encoders=frozenset(),
    max_sequence_length=1024,
    single_file=False,
    gguf=True,
    text_encoders=(TextEncoder("text_encoder", "tokenizer", "prompt", "llm", instruction_tokens=_QWEN_TEMPLATE),),
    long_prompts=("truncate", "refuse"),
)  # fmt: skip

#: Of the pipelines for edits, which read all of a text whatever `max_sequence_length` says.
_MAX_EDIT_TOKENS = 1024
#: Qwen-Image-Edit: its text encoder sees the reference, and its transformer is given it behind the noise.
_QWEN_IMAGE_EDIT = replace(
    QWEN_IMAGE,
    id="qwen-image-edit",
    pipeline="QwenImageEditPipeline",
    controlnet="",
    modes={
        Mode.EDIT: TRUE_CFG | {"references"},
        # The image itself is the reference.
        Mode.INPAINT: TRUE_CFG | MASK,
    },
    defaults={
        **{name: value for name, value in QWEN_IMAGE.defaults.items() if name != "max_sequence_length"},
        "width": 1024, "height": 1024, "long_prompt": "refuse",
    },
    inpaint_control_only=False,
    max_sequence_length=None,
    text_encoders=(
        TextEncoder(
            "text_encoder", "tokenizer", "prompt", "llm", max_tokens=_MAX_EDIT_TOKENS, is_padded=False,
            instruction_tokens=_QWEN_EDIT_TEMPLATE,
        ),
    ),
    long_prompts=("refuse",),
    references=References(
        max_count=1,
        meaning="The picture that `prompt` changes, whatever its size: the model sees it at about a megapixel.",
        scaled_pixels=1024 * 1024,
        seen_pixels=1024 * 1024,
    ),
    reads_image_as_reference=True,
    reserved_words=("<|image_pad|>", "<|video_pad|>"),
)  # fmt: skip
#: Qwen-Image-Edit-Plus, published as 2509 and 2511.
_QWEN_IMAGE_EDIT_PLUS = replace(
    _QWEN_IMAGE_EDIT,
    id="qwen-image-edit-plus",
    pipeline="QwenImageEditPlusPipeline",
    modes={Mode.EDIT: TRUE_CFG | {"references"}},
    references=References(
        max_count=4,
        meaning="The pictures that `prompt` calls Picture 1, Picture 2 and so on, whatever their sizes: the model "
        "sees each at about a megapixel.",
        scaled_pixels=1024 * 1024,
        seen_pixels=384 * 384,
    ),
    reads_image_as_reference=False,
)
#: Qwen-Image-Layered: of one picture, it makes the layers that it may have been composed of.
_QWEN_IMAGE_LAYERED = replace(
    QWEN_IMAGE,
    id="qwen-image-layered",
    pipeline="QwenImageLayeredPipeline",
    controlnet="",
    modes={Mode.EDIT: _QWEN_TEXT | REFERENCES | {"layers"}},
    # It was trained at 640 and at 1024 pixels a side.
    max_pixels=1024 * 1024,
    defaults={**QWEN_IMAGE.defaults, "width": 640, "height": 640, "layers": 4},
    inpaint_control_only=False,
    references=References(
        max_count=1,
        meaning="The picture that is taken apart into layers; `prompt` says what it shows.",
        fits_output=True,
    ),
)
QWEN_IMAGE = replace(
    QWEN_IMAGE,
    other_checkpoints=MappingProxyType(
        {
            "QwenImageEditPipeline": _QWEN_IMAGE_EDIT,
            "QwenImageEditInpaintPipeline": _QWEN_IMAGE_EDIT,
            "QwenImageEditPlusPipeline": _QWEN_IMAGE_EDIT_PLUS,
            "QwenImageLayeredPipeline": _QWEN_IMAGE_LAYERED,
        }
    ),
)
