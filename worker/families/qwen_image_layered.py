"""Qwen-Image-Layered: decomposes one image into transparent layers.

Arguments are those of diffusers' `QwenImageLayeredPipeline`, whose text encoder reads the prompt alone. It
denoises the whole image as a frame before the layers. For several images at once it mixes up their layers.
"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import torch

from contracts.catalogue.families import Mode
from worker.families.inputs import GenerationInputs
from worker.families.packed_latents import PATCH
from worker.families.qwen_parts import guidance, qwen_edit_family, text_encoding
from worker.runtime.async_copies import rebound

#: Without a prompt the pipeline writes one itself, even where embeddings are given: this stands for the one that
#: they were made of.
_ENCODED_BEFORE = "-"


def arguments(inputs: GenerationInputs) -> dict[str, Any]:
    """Return the arguments of the pipeline."""
    job = inputs.job
    return {
        # It has the output's size; the VAE reads how opaque a pixel is, too.
        "image": inputs.references[0].convert("RGBA"),
        "prompt": _ENCODED_BEFORE,
        "layers": job.layers,
        "num_inference_steps": job.num_inference_steps,
        "max_sequence_length": job.max_sequence_length,
        **guidance(inputs),
    }


def _patch(pipeline: Any) -> None:
    pipeline_class: Any = type(pipeline)
    pipeline.__class__ = _of_its_images_size(pipeline_class)


@cache
def _of_its_images_size(pipeline_class: Any) -> Any:
    """The pipeline class without its own choice of a size.

    diffusers' pipeline (0.42) makes images with the area of a square of 640 or 1024 pixels, whatever size its
    image has; `test_the_layers_of_a_picture_equal_those_of_a_direct_call_bit_for_bit` fails when that changes.
    """

    def call(self: Any, *, image: Any, prompt_embeds: Any, **others: Any) -> Any:
        # It takes the image's dtype from its text encoder, which jobs do not hold.
        vars(self)["text_encoder"] = SimpleNamespace(dtype=prompt_embeds.dtype)
        own = rebound(pipeline_class.__call__.__wrapped__, calculate_dimensions=lambda _area, _ratio: image.size)
        return own(self, image=image, prompt_embeds=prompt_embeds, **others)

    return type(pipeline_class.__name__, (pipeline_class,), {"__call__": torch.no_grad()(call)})


def _unpack_whole(pipeline: Any, latents: Any, size: tuple[int, int]) -> Any:
    """Latents (n, channels, height, width) of the whole image, which previews show."""
    width, height = size
    tokens = width * height // pipeline.vae_scale_factor**2 // PATCH
    layers = latents.shape[1] // tokens - 1
    return pipeline._unpack_latents(latents, height, width, layers, pipeline.vae_scale_factor)[:, :, 0]


def _read_images(images: Any) -> Any:
    """The layers of the only image."""
    return images[0]


FAMILY = qwen_edit_family(
    id="qwen-image-layered",
    pipelines={Mode.EDIT: "QwenImageLayeredPipeline"},
    arguments=arguments,
    encoding=text_encoding(),
    patch=_patch,
    unpack_latents=_unpack_whole,
    read_images=_read_images,
)
