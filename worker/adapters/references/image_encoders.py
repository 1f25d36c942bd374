"""Image encoders of IP-Adapters, CLIP or SigLIP: their outputs for reference images, cached by content.

They compute on the CPU in float32: an image is seen once, and the device has no room for them beside a denoiser.
Loaded for the images that are not known, and dropped. Knows no IP-Adapter.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionModelWithProjection,
    SiglipImageProcessorPil,
    SiglipVisionModel,
)

from contracts.weights.adapters.ip_adapter_files import Reads
from contracts.weights.adapters.ip_adapter_rows import read_image_encoder
from worker.checkpoints.components import load_complete
from worker.checkpoints.files import ContentHasher

#: Of what is remembered: a plain embedding has 4 KB, the states of CLIP-H 1.3 MB, twice.
_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class EncodedImage:
    """An encoder's output for one image: (1, width), or (1, positions, width) for states and patches.

    Attributes:
        nothing: the same for no image; of no positions for patches, which only images are read for.
    """

    image: torch.Tensor
    nothing: torch.Tensor

    @property
    def size_bytes(self) -> int:
        """Bytes of both."""
        return self.image.nbytes + self.nothing.nbytes


class ImageEncoders:
    """All image encoders of a worker. Only the thread that runs the jobs may use them."""

    def __init__(self, hasher: ContentHasher) -> None:
        self._hasher = hasher
        self._known: OrderedDict[tuple[str, str, Reads], EncodedImage] = OrderedDict()

    def sha256(self, folder: Path) -> str:
        """The content hash of an encoder."""
        return self._hasher.hash(folder / "model.safetensors")

    def encode(self, folder: Path, images: Sequence[Image.Image], reads: Reads) -> list[EncodedImage]:
        """Return the output of the encoder in `folder` for each image.

        Raises:
            CatalogueError: the folder holds no such encoder, or one that lacks weights.
            Exception: whatever transformers raises for damaged files.
        """
        sha256 = self.sha256(folder)
        keys = [(sha256, _digest(image), reads) for image in images]
        missing = [key for key in dict.fromkeys(keys) if key not in self._known]
        # Held beside the cache, from which the loop at the end may evict some of them.
        found = {key: self._known[key] for key in keys if key in self._known}
        if missing:
            encoder = _load(folder, reads)
            for key in missing:
                found[key] = _encode(encoder, images[keys.index(key)], reads)
        for key, encoded in found.items():
            self._known[key] = encoded
            self._known.move_to_end(key)
        while sum(encoded.size_bytes for encoded in self._known.values()) > _MAX_BYTES and len(self._known) > 1:
            self._known.popitem(last=False)
        return [found[key] for key in keys]


def _load(folder: Path, reads: Reads) -> Any:
    read_image_encoder(folder, reads)
    encoder_class = SiglipVisionModel if reads == "patches" else CLIPVisionModelWithProjection
    # The encoder is used by many calls in inference mode, but is not loaded in any of them.
    with torch.inference_mode(mode=False), torch.no_grad():
        encoder = load_complete(encoder_class, folder, "the image encoder", torch.float32, None)
    return encoder.eval()


def _encode(encoder: Any, image: Image.Image, reads: Reads) -> EncodedImage:
    """As `encode_image` of diffusers' `StableDiffusionXLPipeline` and `FluxPriorReduxPipeline` (0.42)."""
    side = encoder.config.image_size
    if reads == "patches":
        processor = SiglipImageProcessorPil(size={"height": side, "width": side})
        pixels = processor(image, return_tensors="pt", do_convert_rgb=True).pixel_values
        with torch.no_grad():
            patches = encoder(pixels).last_hidden_state
        return EncodedImage(patches, patches[:, :0])
    pixels = CLIPImageProcessorPil(size=side, crop_size=side)(image, return_tensors="pt").pixel_values
    with torch.no_grad():
        if reads == "embedding":
            embedding = encoder(pixels).image_embeds
            return EncodedImage(embedding, torch.zeros_like(embedding))
        states, nothing = (
            encoder(given, output_hidden_states=True).hidden_states[-2]
            for given in (pixels, torch.zeros_like(pixels))
        )
    return EncodedImage(states, nothing)


def _digest(image: Image.Image) -> str:
    return hashlib.sha256(f"{image.size} {image.mode} ".encode() + image.tobytes()).hexdigest()
