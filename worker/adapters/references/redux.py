"""FLUX.1 Redux: reference images become tokens that the transformer reads behind those of the prompt.

Arithmetic and order of operations are those of diffusers' `FluxPriorReduxPipeline` (0.42), whose result its FLUX
pipelines take for a prompt. Nothing is put into the model. Knows no catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from safetensors import safe_open

from contracts.weights.adapters.ip_adapter_files import read_ip_adapter
from worker.adapters.references.image_encoders import EncodedImage
from worker.adapters.references.image_prompts import ImagePrompt, finite_tensor

_SEQUENCE, _POOLED = "prompt_embeds", "pooled_prompt_embeds"


def read_tokens(transformer: Any, path: Path, encoded: Sequence[EncodedImage]) -> torch.Tensor:
    """Project reference images to tokens of the prompt's width, on the CPU in float32, as they were encoded.

    Args:
        transformer: of the model.

    Returns:
        (images, tokens, width).

    Raises:
        AdapterRefused: the file is not Redux.
        ValueError: it does not fit the model or the encoder, or contains NaN or infinite values.
    """
    facts = read_ip_adapter(path)
    if facts.width != transformer.config.joint_attention_dim:
        raise ValueError(
            f"its tokens have {facts.width} values, and the model reads {transformer.config.joint_attention_dim}"
        )
    if facts.image_width != (width := encoded[0].image.shape[-1]):
        raise ValueError(f"it reads {facts.image_width} values of an image, and its image encoder gives {width}")
    embedder = ReduxImageEncoder(redux_dim=facts.image_width, txt_in_features=facts.width)
    with safe_open(path, framework="pt") as file:
        embedder.load_state_dict({name: finite_tensor(file, name).float() for name in embedder.state_dict()})
    with torch.no_grad():
        tokens: torch.Tensor = embedder(torch.cat([one.image for one in encoded])).image_embeds
    return tokens


def lengthen_prompt(arguments: Mapping[str, Any], prompts: Sequence[ImagePrompt]) -> dict[str, Any]:
    """Return the embedding arguments of a pipeline call with the tokens of reference images.

    Each image is read with the prompt, weighed as a whole by its scale, and all are added up.

    Args:
        arguments: with the embedding of one prompt, once for each image of the call.
        prompts: the reference images of a job; those of other kinds change nothing here.
    """
    read = [(prompt.tokens, prompt.scale) for prompt in prompts if prompt.tokens is not None]
    if not read:
        return dict(arguments)
    sequence, pooled = arguments[_SEQUENCE][:1], arguments[_POOLED][:1]
    tokens = torch.cat([one for one, _ in read]).to(sequence)
    scales = torch.tensor([scale for one, scale in read for _ in one]).to(sequence)
    sequences = torch.cat([sequence.expand(len(tokens), -1, -1), tokens], dim=1) * scales[:, None, None]
    vectors = pooled.expand(len(tokens), -1) * scales[:, None]
    images = len(arguments[_SEQUENCE])
    return {
        **arguments,
        _SEQUENCE: torch.cat([sequences.sum(dim=0, keepdim=True)] * images),
        _POOLED: torch.cat([vectors.sum(dim=0, keepdim=True)] * images),
    }
