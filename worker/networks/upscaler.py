"""An upscaler's network on each tile of an image, and the device memory that it takes. Knows no jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch

from contracts.memory.sizes.networks import TILE_SIDES, overlap_of, upscaler_bytes
from contracts.weights.networks import UpscalerFacts
from worker.networks.images import Pixels, require_finite, to_input, to_pixels
from worker.networks.tiles import Tile, tiles_of


def tile_plans(facts: UpscalerFacts, size: tuple[int, int], device: torch.device) -> Mapping[int, int]:
    """Side of the tiles, best first -> maximum bytes of device memory that an image of this size takes."""
    return {side: upscaler_bytes(facts, size, side) for side in TILE_SIDES[device.type]}


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
    for tile in tiles_of(width, height, side, overlap_of(facts)):
        yield lambda tile=tile: _upscale_tile(network, facts, pixels, tile, canvas, device)  # type: ignore[misc]


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
