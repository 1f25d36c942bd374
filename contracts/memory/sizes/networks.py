"""Device memory that upscalers and erasers take, which run by themselves beside the models."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

from contracts.weights.configs import file_state
from contracts.weights.networks import EraserFacts, UpscalerFacts, read_eraser, read_upscaler

#: Facts of a network whose smallest plan is known.
NetworkFacts = UpscalerFacts | EraserFacts
#: Sides of an upscaler's tiles in pixels by device, the best first. A CPU takes seconds for a large tile, and no
#: job runs meanwhile.
TILE_SIDES = {"cuda": (512, 256, 128, 64), "cpu": (128, 64)}
#: Pixels around a tile: beyond them, what an ESRGAN sees hardly matters.
_MAX_OVERLAP = 32
#: Of which both sides of an eraser's input must be, as of LaMa's.
ERASER_MULTIPLE = 8
#: Networks compute in float32.
VALUE_BYTES = 4
#: What the libraries take beside the layers' values.
SCRATCH_BYTES = 2**23


def read_network(kind: str, file: Path) -> NetworkFacts:
    """What a file of this kind (`upscaler`, `eraser`) holds; raises CatalogueError and OSError.

    A file that has not changed is not read again.
    """
    return _read(kind, file, file_state(file))


@lru_cache(maxsize=64)
def _read(kind: str, file: Path, _: tuple[int, ...]) -> NetworkFacts:
    return read_upscaler(file) if kind == "upscaler" else read_eraser(file)


def overlap_of(facts: UpscalerFacts) -> int:
    """Pixels around a tile, a multiple of what the network's input must be."""
    overlap = min(facts.radius, _MAX_OVERLAP)
    return -(-overlap // facts.multiple) * facts.multiple


def upscaler_bytes(facts: UpscalerFacts, size: tuple[int, int], side: int) -> int:
    """The most that an upscaler takes for an image of this size with tiles of this side: weights, and a tile's."""
    longest = side + 2 * overlap_of(facts) + facts.multiple - 1
    pixels = min(size[0] + facts.multiple, longest) * min(size[1] + facts.multiple, longest)
    return facts.values * VALUE_BYTES + pixels * facts.pixel_values * VALUE_BYTES + SCRATCH_BYTES


def eraser_bytes(facts: EraserFacts, pixels: int) -> int:
    """The most that an eraser takes for so many pixels."""
    padded = (math.isqrt(pixels) + 2 * ERASER_MULTIPLE) ** 2
    return facts.values * VALUE_BYTES + padded * facts.pixel_values * VALUE_BYTES + SCRATCH_BYTES


def least_bytes(facts: NetworkFacts, size: tuple[int, int]) -> int:
    """What a network needs for an image of this size in the smallest way in which it runs.

    For an eraser a lower bound: how much of the image is around its mask is known to the worker.
    """
    if isinstance(facts, UpscalerFacts):
        return upscaler_bytes(facts, size, min(map(min, TILE_SIDES.values())))
    return eraser_bytes(facts, ERASER_MULTIPLE**2)
