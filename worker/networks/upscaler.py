"""An upscaler's network on each tile of an image, and the device memory that it takes. Knows no jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch

from contracts.weights.networks import UpscalerFacts
from worker.networks.images import SCRATCH_BYTES, VALUE_BYTES, Pixels, require_finite, to_input, to_pixels
from worker.networks.tiles import Tile, tiles_of

#: Sides of tiles in pixels, the best first. A CPU takes seconds for a large tile, and no job runs meanwhile.
_SIDES = {"cuda": (512, 256, 128, 64), "cpu": (128, 64)}
#: Pixels around a tile: beyond them, what an ESRGAN sees hardly matters.
_MAX_OVERLAP = 32


def tile_plans(facts: UpscalerFacts, size: tuple[int, int], device: torch.device) -> Mapping[int, int]:
    """Side of the tiles, the best first -> the most device memory that an image of this size takes in bytes."""
    return {side: planned_bytes(facts, size, side) for side in _SIDES[device.type]}


def planned_bytes(facts: UpscalerFacts, size: tuple[int, int], side: int) -> int:
    """The most device memory that an upscaler takes with tiles of this side: weights, and what a tile makes."""
    longest = side + 2 * _overlap_of(facts) + facts.multiple - 1
    pixels = min(size[0] + facts.multiple, longest) * min(size[1] + facts.multiple, longest)
    return facts.values * VALUE_BYTES + pixels * facts.pixel_values * VALUE_BYTES + SCRATCH_BYTES


def upscale_pixels(
    network: torch.nn.Module, facts: UpscalerFacts, pixels: Pixels, side: int, device: torch.device
) -> Pixels:
    """Upscale an image (height, width, 3) of 0…255 in one go, in tiles of this side."""
    canvas = empty_canvas(facts, pixels)
    for upscale_tile in tile_steps(network, facts, pixels, side, canvas, device):
        upscale_tile()
    return canvas


def empty_canvas(facts: UpscalerFacts, pixels: Pixels) -> Pixels:
    """Room for the upscaled image."""
    height, width = pixels.shape[:2]
    return np.empty((height * facts.scale, width * facts.scale, 3), np.uint8)


def tile_steps(
    network: torch.nn.Module,
    facts: UpscalerFacts,
    pixels: Pixels,
    side: int,
    canvas: Pixels,
    device: torch.device,
) -> Iterator[Callable[[], None]]:
    """Yield for each tile of an image what upscales it into its place on the canvas."""
    height, width = pixels.shape[:2]
    for tile in tiles_of(width, height, side, _overlap_of(facts)):
        yield lambda tile=tile: _upscale_tile(network, facts, pixels, tile, canvas, device)  # type: ignore[misc]


def _overlap_of(facts: UpscalerFacts) -> int:
    """Pixels around a tile, a multiple of what the network's input must be."""
    overlap = min(facts.radius, _MAX_OVERLAP)
    return -(-overlap // facts.multiple) * facts.multiple


def _upscale_tile(
    network: torch.nn.Module,
    facts: UpscalerFacts,
    pixels: Pixels,
    tile: Tile,
    canvas: Pixels,
    device: torch.device,
) -> None:
    """Write one tile of the result into its place on the canvas."""
    left, upper, right, lower = tile.taken
    given = to_input(pixels[upper:lower, left:right], device)
    more_x, more_y = -(right - left) % facts.multiple, -(lower - upper) % facts.multiple
    if more_x or more_y:
        given = torch.nn.functional.pad(given, (0, more_x, 0, more_y), mode="replicate")
    made = network(given)
    require_finite(made, "upscaler")
    scale = facts.scale
    begin_x, begin_y = (tile.kept[0] - left) * scale, (tile.kept[1] - upper) * scale
    end_x, end_y = (tile.kept[2] - left) * scale, (tile.kept[3] - upper) * scale
    x, y, to_x, to_y = (edge * scale for edge in tile.kept)
    canvas[y:to_y, x:to_x] = to_pixels(made[0, :, begin_y:end_y, begin_x:end_x])
