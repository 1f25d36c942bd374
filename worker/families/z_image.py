"""Z-Image and Z-Image-Turbo: one stream of image and prompt tokens; Qwen3 reads the prompt.

Arguments are those of diffusers' `ZImagePipeline` and its variants (`diffusers.pipelines.z_image`). Embeddings
are lists, a tensor for each image, since the transformer pads them itself. A ControlNet is not whole by itself: it
runs the transformer's first layers, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from contracts.catalogue.families import Mode
from worker.families import DiffusersFamily, first_difference
from worker.families.inputs import GenerationInputs
from worker.families.prompts import PromptEncoding

#: The guidance scale that guides nothing: the pipelines compute `positive + scale × (positive − negative)`.
_OFF = 0.0
#: What a ControlNet borrows of the transformer.
_BORROWED = frozenset(
    {
        "t_scale", "t_embedder", "all_x_embedder", "cap_embedder", "rope_embedder", "noise_refiner",
        "context_refiner", "x_pad_token", "cap_pad_token",
    }
)  # fmt: skip


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of a Z-Image pipeline."""
    job = inputs.job
    return {
        **inputs.size,
        "num_inference_steps": job.num_inference_steps,
        "guidance_scale": inputs.guidance_scale_or(_OFF),
        "max_sequence_length": job.max_sequence_length,
        **_BY_MODE[job.mode](inputs),
    }


def _txt2img(inputs: GenerationInputs) -> dict[str, Any]:  # noqa: ARG001
    return {}


def _img2img(inputs: GenerationInputs) -> dict[str, Any]:
    return inputs.start


def _inpaint(inputs: GenerationInputs) -> dict[str, Any]:
    return {**inputs.start, **inputs.inpaint_mask}


def _controlnet(inputs: GenerationInputs) -> dict[str, Any]:
    # Once for each image: given once, several images cannot be made with a mask.
    return {
        "control_image": [inputs.controls[0]] * inputs.job.num_images,
        "controlnet_conditioning_scale": inputs.job.controls[0].conditioning_scale,
    }


def _controlnet_inpaint(inputs: GenerationInputs) -> dict[str, Any]:
    # The ControlNet sees the masked image; the latents start from noise.
    return {**_controlnet(inputs), **inputs.inpaint_mask, "image": [inputs.image] * inputs.job.num_images}


def _negative_prompt(inputs: GenerationInputs, config: Mapping[str, Any]) -> str | None:
    del config
    return None if inputs.guidance_scale_or(_OFF) <= _OFF else inputs.negative_prompt


def _one_tensor_an_image(rows: Sequence[Any]) -> list[Any]:
    return [row[0] for row in rows]


def _misfit(components: Mapping[str, Any]) -> str | None:
    transformer, vae = components["transformer"].config, components["vae"].config
    pairs: dict[str, tuple[Any, Any]] = {
        "in_channels of the transformer": (transformer.in_channels, vae.latent_channels)
    }
    if components.get("text_encoder") is not None:
        width = components["text_encoder"].config.hidden_size
        pairs["cap_feat_dim of the transformer"] = (transformer.cap_feat_dim, width)
    return first_difference(pairs)


def complete_controlnet(controlnet: Any, transformer: Any) -> None:
    """Let a ControlNet run the transformer's own layers, without making them its submodules.

    As submodules they would be moved and counted twice. diffusers' pipelines (0.42) set them as submodules again,
    so the ControlNet gets a class that does not register them;
    `test_the_layers_that_a_controlnet_shares_are_counted_and_moved_once` fails when they are set in another way.
    """
    controlnet_class: Any = type(controlnet)
    controlnet.__class__ = _borrowing(controlnet_class)
    controlnet_class.from_transformer(controlnet, transformer)


@cache
def _borrowing(controlnet_class: Any) -> Any:
    def set_attribute(self: Any, name: str, value: Any) -> None:
        if name in _BORROWED:
            object.__setattr__(self, name, value)
        else:
            controlnet_class.__setattr__(self, name, value)

    attributes = {"__setattr__": set_attribute, "__module__": controlnet_class.__module__}
    return type(controlnet_class.__name__, (controlnet_class,), attributes)


_BY_MODE: dict[Mode, Callable[[GenerationInputs], dict[str, Any]]] = {
    Mode.TXT2IMG: _txt2img,
    Mode.IMG2IMG: _img2img,
    Mode.INPAINT: _inpaint,
    Mode.CONTROLNET: _controlnet,
    Mode.CONTROLNET_INPAINT: _controlnet_inpaint,
}

FAMILY = DiffusersFamily(
    id="z-image",
    pipelines={
        Mode.TXT2IMG: "ZImagePipeline",
        Mode.IMG2IMG: "ZImageImg2ImgPipeline",
        Mode.INPAINT: "ZImageInpaintPipeline",
        Mode.CONTROLNET: "ZImageControlNetPipeline",
        Mode.CONTROLNET_INPAINT: "ZImageControlNetInpaintPipeline",
    },
    controlnet="ZImageControlNetModel",
    multi_controlnet="",
    denoiser="transformer",
    denoiser_class="ZImageTransformer2DModel",
    repeated_blocks=("ZImageTransformerBlock",),
    t5=None,
    encoding=PromptEncoding(
        prompt_fields=("prompt",),
        option_fields=("max_sequence_length",),
        negative_option_fields=("max_sequence_length",),
        negative_prompt=_negative_prompt,
        results={"prompt_embeds": 0},
        constants={"do_classifier_free_guidance": False},
        join=_one_tensor_an_image,
    ),
    arguments=arguments,
    misfit=_misfit,
    complete_controlnet=complete_controlnet,
)
