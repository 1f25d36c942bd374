"""What all Qwen-Image checkpoints share: classes, encoder, packed latents. Not a family: four are made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoTokenizer, Qwen2VLImageProcessorPil, Qwen2VLProcessor

from contracts.catalogue.families import Mode
from worker.families import DiffusersFamily, first_difference
from worker.families.inputs import GenerationInputs
from worker.families.packed_latents import PATCH, unpack_latents
from worker.families.prompts import PromptEncoding, one_tensor


def qwen_family(
    id: str,
    pipelines: Mapping[Mode, str],
    arguments: Callable[[GenerationInputs], dict[str, Any]],
    encoding: PromptEncoding,
    **more: Any,
) -> DiffusersFamily:
    """Return a family of Qwen-Image's architecture; `more` are further fields of it."""
    return DiffusersFamily(
        id=id,
        pipelines=pipelines,
        denoiser="transformer",
        denoiser_class="QwenImageTransformer2DModel",
        repeated_blocks=("QwenImageTransformerBlock",),
        t5=None,
        encoding=encoding,
        arguments=arguments,
        misfit=_misfit,
        **{"controlnet": "", "multi_controlnet": "", "unpack_latents": _unpack_latents, **more},
    )


def qwen_edit_family(**fields: Any) -> DiffusersFamily:
    """Return a family of Qwen-Image's architecture whose pipelines have the processor of its text encoder."""
    return qwen_family(load_others=_load_processor, **fields)


def text_encoding() -> PromptEncoding:
    """Return how a prompt becomes an embedding where its encoder sees no images."""
    return PromptEncoding(
        prompt_fields=("prompt",),
        option_fields=("max_sequence_length",),
        negative_option_fields=("max_sequence_length",),
        negative_prompt=negative_prompt,
        results={"prompt_embeds": 0, "prompt_embeds_mask": 1},
        constants={},
    )


def edit_encoding(
    images: Callable[[GenerationInputs], Sequence[Image.Image]], join: Callable[[Sequence[Any]], Any] = one_tensor
) -> PromptEncoding:
    """Return how a prompt becomes an embedding together with what its encoder sees.

    Args:
        images: what it sees.
        join: rows, (1, …) of each image -> the argument's value.
    """
    return PromptEncoding(
        prompt_fields=("prompt",),
        option_fields=(),
        negative_option_fields=(),
        negative_prompt=negative_prompt,
        results={"prompt_embeds": 0, "prompt_embeds_mask": 1},
        constants={},
        join=join,
        images=images,
    )


def scaled(image: Image.Image, dimensions: Callable[..., Sequence[Any]], area: int) -> Image.Image:
    """Return the image at about this area, as the pipelines scale it.

    Args:
        dimensions: (area, width ÷ height) -> width and height.
    """
    width, height = dimensions(area, image.width / image.height)[:2]
    return image.resize((width, height), Image.Resampling.LANCZOS)


class _ImageProcessor(Qwen2VLProcessor):  # type: ignore[misc]
    """Qwen2-VL's processor without the part for videos, which is what needs torchvision."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, **options: Any) -> None:
        super().__init__(image_processor, tokenizer, **options)


def _load_processor(folder: Path) -> dict[str, Any]:
    part = folder / "processor"
    tokenizer = AutoTokenizer.from_pretrained(part, local_files_only=True)
    images = Qwen2VLImageProcessorPil.from_pretrained(part, local_files_only=True)
    return {"processor": _ImageProcessor(images, tokenizer)}


def guidance(inputs: GenerationInputs) -> dict[str, float]:
    """Argument for the guidance, with a pass of its own for the negative prompt."""
    return {"true_cfg_scale": _scale(inputs)}


def negative_prompt(inputs: GenerationInputs, config: Mapping[str, Any]) -> str | None:
    """Pass an empty negative prompt if there is none: without one, the pipelines ignore `true_cfg_scale`."""
    del config
    return None if _scale(inputs) <= 1 else inputs.negative_prompt


def _scale(inputs: GenerationInputs) -> float:
    return inputs.job.true_cfg_scale or 1.0


def _unpack_latents(pipeline: Any, latents: Any, size: tuple[int, int]) -> Any:
    return unpack_latents(pipeline, latents, size)[:, :, 0]


def _misfit(components: Mapping[str, Any]) -> str | None:
    transformer, vae = components["transformer"].config, components["vae"].config
    pairs: dict[str, tuple[Any, Any]] = {
        "in_channels of the transformer": (transformer.in_channels, PATCH * vae.z_dim),
        "guidance_embeds of the transformer": (bool(transformer.guidance_embeds), False),
    }
    if components.get("text_encoder") is not None:
        width = components["text_encoder"].config.text_config.hidden_size
        pairs["joint_attention_dim of the transformer"] = (transformer.joint_attention_dim, width)
    return first_difference(pairs)
