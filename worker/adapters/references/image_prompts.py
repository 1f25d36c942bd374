"""Reads an IP-Adapter file for one job: its reference images become keys and values of each cross-attention layer.

Arithmetic and order of operations are those of diffusers' `IPAdapterAttnProcessor2_0` (0.42). Nothing is put into
the model. diffusers' own way sets the shared model's attention processors, and blends the references of all images
of a call (`tests/worker/adapters/references/test_image_prompts.py` shows that no image here sees another's).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open
from torch.nn import functional

from contracts.jobs.receipt import Weights
from contracts.weights.adapters.ip_adapter_files import IpAdapterFacts, read_ip_adapter
from worker.adapters.references.image_encoders import EncodedImage

#: Keys and values: (passes, tokens, width of the layer); one pair, or one for each reference image.
KeyValues = Sequence[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, eq=False)
class ImagePrompt:
    """The reference images of one IP-Adapter of a job.

    Attributes:
        weights: the adapter, for receipts.
        encoder: its image encoder, for receipts.
        scale: of what the layers add.
        layers: cross-attention layer -> keys and values; first of no image where the job is guided, then of the
            images. Empty where `tokens` act.
        is_guided: whether a call has a row without the prompt for each row with it.
        mask: (1, height, width) of 0 and 1, where it acts; None: everywhere.
        tokens: (images, tokens, width), in host memory, that follow those of the prompt; None: `layers` act.
        number: tells it from all others of the process.
    """

    weights: Weights
    encoder: Weights
    scale: float
    layers: Mapping[Any, KeyValues]
    is_guided: bool
    mask: torch.Tensor | None = None
    tokens: torch.Tensor | None = None
    number: int = field(default_factory=count().__next__)

    @property
    def size_bytes(self) -> int:
        """Bytes of all keys and values, on the device."""
        return sum(tensor.nbytes for pairs in self.layers.values() for pair in pairs for tensor in pair)


def cross_attentions(unet: Any) -> dict[str, Any]:
    """Return the layers that read the prompt, in the order in which IP-Adapter files number them."""
    names = [
        name.removesuffix(".processor") for name in unet.attn_processors if not name.endswith("attn1.processor")
    ]
    return {name: unet.get_submodule(name) for name in names}


def read_layers(
    unet: Any, path: Path, encoded: Sequence[EncodedImage], *, is_guided: bool, apart: bool, device: torch.device
) -> dict[Any, KeyValues]:
    """Project reference images to keys and values of each cross-attention layer.

    Args:
        unet: of the model; its dtype is that of the result.
        encoded: the images.
        apart: whether each image has keys of its own, as a mask needs.

    Raises:
        AdapterRefused: the file is not an IP-Adapter, or of a kind that is not supported.
        ValueError: it does not fit the model or the encoder, or contains NaN or infinite values.
    """
    facts = read_ip_adapter(path)
    layers = cross_attentions(unet)
    _check_widths(unet, layers, facts, encoded)
    dtype = unet.dtype
    with safe_open(path, framework="pt") as file:
        projection = _projection(unet, file, dtype, device)
        tokens = _tokens(projection, encoded, is_guided=is_guided, dtype=dtype, device=device)
        found: dict[Any, KeyValues] = {}
        for index, layer in enumerate(layers.values()):
            # One layer's weights at a time are on the device.
            key, value = (
                finite_tensor(file, f"ip_adapter.{2 * index + 1}.to_{half}_ip.weight").to(device, dtype)
                for half in "kv"
            )
            groups = [tokens[:, one] for one in range(len(encoded))] if apart else [tokens]
            pairs = [(functional.linear(group, key), functional.linear(group, value)) for group in groups]
            found[layer] = [
                (keys.reshape(len(tokens), -1, keys.shape[-1]), values.reshape(len(tokens), -1, values.shape[-1]))
                for keys, values in pairs
            ]
    return found


def _check_widths(
    unet: Any, layers: Mapping[str, Any], facts: IpAdapterFacts, encoded: Sequence[EncodedImage]
) -> None:
    if len(layers) != facts.layers:
        raise ValueError(
            f"it is made for a model of {facts.layers} cross-attention layers, and this one has {len(layers)}"
        )
    if facts.width != unet.config.cross_attention_dim:
        raise ValueError(
            f"its tokens have {facts.width} values, and the model's layers read {unet.config.cross_attention_dim}"
        )
    width = encoded[0].image.shape[-1]
    if width != facts.image_width:
        raise ValueError(f"it reads {facts.image_width} values of an image, and its image encoder gives {width}")


def _projection(unet: Any, file: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """The projection of an encoded image into tokens, as diffusers builds it, outside the UNet."""
    prefix = "image_proj."
    stored = {
        name.removeprefix(prefix): finite_tensor(file, name)
        for name in file.keys()  # noqa: SIM118  # not a dictionary
        if name.startswith(prefix)
    }
    try:
        module = unet._convert_ip_adapter_image_proj_to_diffusers(stored, low_cpu_mem_usage=False)
    except (KeyError, RuntimeError, IndexError) as error:
        raise ValueError(
            f"its image_proj is not of a known layout: {' '.join(str(error).split())[:200]}"
        ) from error
    return module.to(device, dtype).eval()


def _tokens(
    projection: Any, encoded: Sequence[EncodedImage], *, is_guided: bool, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Tokens (passes, images, tokens, width)."""
    passes = [torch.cat([one.nothing for one in encoded])] * is_guided + [
        torch.cat([one.image for one in encoded])
    ]
    given = torch.cat(passes).to(device, dtype)
    with torch.no_grad():
        tokens: torch.Tensor = projection(given)
    return tokens.reshape(len(passes), len(encoded), *tokens.shape[1:])


def finite_tensor(file: Any, name: str) -> torch.Tensor:
    """Return a tensor of an open file; one of 8-bit floats as float32.

    Raises:
        ValueError: it contains NaN or infinite values.
    """
    tensor: torch.Tensor = file.get_tensor(name)
    if tensor.dtype.is_floating_point and tensor.dtype.itemsize == 1:
        tensor = tensor.to(torch.float32)
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name[:120]} contains NaN or infinite values")
    return tensor


def mask_of(image: Image.Image | None, device: torch.device) -> torch.Tensor | None:
    """A mask (1, height, width) of 0 and 1, as diffusers' `IPAdapterMaskProcessor` makes it."""
    if image is None:
        return None
    values = torch.frombuffer(bytearray(image.convert("L").tobytes()), dtype=torch.uint8)
    return (values.float() / 255 >= 0.5).float().reshape(1, image.height, image.width).to(device)
