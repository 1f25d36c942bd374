"""Qwen-Image, its edits and its layers."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from contracts.catalogue.family import Family, Mode, TextEncoder
from contracts.catalogue.family_parts import CONTROLS, HIRES, IMAGE, MASK, REFERENCES, SEQUENCE_TEXT, TRUE_CFG
from contracts.catalogue.references import References

_TEXT = SEQUENCE_TEXT | TRUE_CFG

#: Tokens of their template that the pipelines cut off, of a prompt and of one with pictures.
_QWEN_TEMPLATE, _QWEN_EDIT_TEMPLATE = 34, 64
#: Qwen-Image. It is not distilled, so `true_cfg_scale` is its only guidance.
FAMILY = Family(
    id="qwen-image",
    kind="flow",
    pipeline="QwenImagePipeline",
    controlnet="QwenImageControlNetModel",
    modes={
        Mode.TXT2IMG: _TEXT | HIRES,
        Mode.IMG2IMG: _TEXT | IMAGE,
        Mode.INPAINT: _TEXT | MASK,
        Mode.CONTROLNET: _TEXT | CONTROLS,
        # The pipeline starts from pure noise, guided by its ControlNet, so it has neither strength nor crop.
        Mode.CONTROLNET_INPAINT: _TEXT | CONTROLS | {"image", "mask_image", "mask_blur"},
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
    FAMILY,
    id="qwen-image-edit",
    pipeline="QwenImageEditPipeline",
    controlnet="",
    modes={
        Mode.EDIT: TRUE_CFG | {"references"},
        # The image itself is the reference.
        Mode.INPAINT: TRUE_CFG | MASK,
    },
    defaults={
        **{name: value for name, value in FAMILY.defaults.items() if name != "max_sequence_length"},
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
        meaning="The image that `prompt` changes, whatever its size: the model sees it at about a megapixel.",
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
        meaning="The images that `prompt` calls Picture 1, Picture 2 and so on, whatever their sizes: the model "
        "sees each at about a megapixel.",
        scaled_pixels=1024 * 1024,
        seen_pixels=384 * 384,
    ),
    reads_image_as_reference=False,
)
#: Qwen-Image-Layered: of one picture, it makes the layers that it may have been composed of.
_QWEN_IMAGE_LAYERED = replace(
    FAMILY,
    id="qwen-image-layered",
    pipeline="QwenImageLayeredPipeline",
    controlnet="",
    modes={Mode.EDIT: _TEXT | REFERENCES | {"layers"}},
    # It was trained at 640 and at 1024 pixels a side.
    max_pixels=1024 * 1024,
    defaults={**FAMILY.defaults, "width": 640, "height": 640, "layers": 4},
    inpaint_control_only=False,
    references=References(
        max_count=1,
        meaning="The image that is decomposed into layers; `prompt` says what it shows.",
        fits_output=True,
    ),
)
FAMILY = replace(
    FAMILY,
    other_checkpoints=MappingProxyType(
        {
            "QwenImageEditPipeline": _QWEN_IMAGE_EDIT,
            "QwenImageEditInpaintPipeline": _QWEN_IMAGE_EDIT,
            "QwenImageEditPlusPipeline": _QWEN_IMAGE_EDIT_PLUS,
            "QwenImageLayeredPipeline": _QWEN_IMAGE_LAYERED,
        }
    ),
)
