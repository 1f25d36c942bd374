"""Kolors: Stable Diffusion XL's UNet behind ChatGLM3, which reads English and Chinese prompts.

Arguments are those of diffusers' `KolorsPipeline` and `KolorsImg2ImgPipeline` (`diffusers.pipelines.kolors`). Its
tokenizer needs the package sentencepiece.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from contracts.catalogue.families import Mode
from worker.families import DiffusersFamily, first_difference
from worker.families.inputs import GenerationInputs
from worker.families.prompts import PromptEncoding, negative_if_guided
from worker.families.sdxl_parts import usual_arguments

_VECTORS = ("pooled_prompt_embeds", "negative_pooled_prompt_embeds")


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of a Kolors pipeline."""
    # That for images makes its output as large as the image, whatever size it is given.
    own = inputs.start if inputs.job.mode is Mode.IMG2IMG else inputs.size
    return {**usual_arguments(inputs), **own}


def _patch(pipeline: Any) -> None:
    """Make the img2img pipeline use the pooled vectors that its call gets with the embeddings.

    diffusers' `KolorsImg2ImgPipeline` (0.42) does not pass them on to its own `encode_prompt`, which needs them;
    `test_an_image_equals_that_of_bare_diffusers` fails when it does.
    """
    if "Img2Img" in type(pipeline).__name__:
        pipeline_class: Any = type(pipeline)
        pipeline.__class__ = _remembering(pipeline_class)


@cache
def _remembering(pipeline_class: Any) -> Any:
    def call(self: Any, **given: Any) -> Any:
        vars(self)["given_vectors"] = {name: given.get(name) for name in _VECTORS}
        return pipeline_class.__call__(self, **given)

    def encode_prompt(self: Any, **given: Any) -> Any:
        return pipeline_class.encode_prompt(self, **given, **vars(self)["given_vectors"])

    members = {"__call__": call, "encode_prompt": encode_prompt, "__module__": pipeline_class.__module__}
    return type(pipeline_class.__name__, (pipeline_class,), members)


def _misfit(components: Mapping[str, Any]) -> str | None:
    unet, vae = components["unet"].config, components["vae"].config
    pairs: dict[str, tuple[Any, Any]] = {
        "addition_embed_type of the UNet": (unet.addition_embed_type, "text_time"),
        "encoder_hid_dim_type of the UNet": (unet.encoder_hid_dim_type, "text_proj"),
        "in_channels of the UNet": (unet.in_channels, vae.latent_channels),
        "out_channels of the UNet": (unet.out_channels, vae.latent_channels),
    }
    if components.get("text_encoder") is not None:
        width = components["text_encoder"].config.hidden_size
        # The encoder's vector, and the six numbers of sizes and crops.
        conditions = width + 6 * (unet.addition_time_embed_dim or 0)
        pairs["encoder_hid_dim of the UNet"] = (unet.encoder_hid_dim, width)
        found = unet.projection_class_embeddings_input_dim
        pairs["projection_class_embeddings_input_dim of the UNet"] = (found, conditions)
    return first_difference(pairs)


FAMILY = DiffusersFamily(
    id="kolors",
    pipelines={Mode.TXT2IMG: "KolorsPipeline", Mode.IMG2IMG: "KolorsImg2ImgPipeline"},
    packages=("sentencepiece",),
    controlnet="",
    multi_controlnet="",
    denoiser="unet",
    denoiser_class="UNet2DConditionModel",
    repeated_blocks=("BasicTransformerBlock",),
    t5=None,
    encoding=PromptEncoding(
        prompt_fields=("prompt",),
        option_fields=(),
        negative_option_fields=(),
        negative_prompt=negative_if_guided,
        results={"prompt_embeds": 0, "pooled_prompt_embeds": 2},
        constants={"do_classifier_free_guidance": False},
    ),
    arguments=arguments,
    misfit=_misfit,
    patch=_patch,
)
