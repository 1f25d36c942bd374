"""How many bytes a request takes beyond the weights, stage by stage: encode, denoise, decode.

An estimate from the request and the components' configurations; it knows nothing of budgets or placements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from contracts.families import FAMILIES


@dataclass(frozen=True)
class Stages:
    """Bytes beyond the weights while each stage runs."""

    encode_bytes: int
    denoise_bytes: int
    decode_bytes: int


@dataclass(frozen=True)
class Canvas:
    """What is painted in one pipeline call.

    Attributes:
        images: in the call.
        guided: whether every image is denoised twice a step, with and without the prompt.
        controlnets: how many run beside the denoiser.
    """

    family: str
    width: int
    height: int
    images: int = 1
    guided: bool = True
    controlnets: int = 0

    @property
    def pixels(self) -> int:
        """Of all images."""
        return self.width * self.height * self.images


def estimate(
    canvas: Canvas,
    configs: Mapping[str, Mapping[str, object]],  # noqa: ARG001
    value_bytes: int,
    tile_side: int | None = None,
) -> Stages:
    """Bytes of each stage.

    Args:
        configs: component -> its configuration; where one is missing, the family's published figures stand in.
        value_bytes: of the dtype that is computed in.
        tile_side: pixels; the VAE works image by image in tiles of this side. None: all at once.
    """
    pixel_bytes = FAMILIES[canvas.family].activation_bytes_per_pixel * value_bytes // 2
    decoded = canvas.pixels if tile_side is None else min(canvas.width * canvas.height, tile_side**2)
    denoise_bytes = canvas.pixels * pixel_bytes // 4 * (1 + canvas.controlnets)
    return Stages(denoise_bytes // 4, denoise_bytes, decoded * pixel_bytes)
