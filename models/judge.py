"""Looks at an image of one shape on a plain background and says what it shows. Arithmetic only, nothing learnt.

Knows the palette and the outlines of `models.training.data.drawing`; no torch, no prompts. An image of any size is
scaled so that its shorter edge has 64 pixels.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models.training.data.drawing import COLOURS, EDGE_PIXELS, PALETTE, SHAPES, outline, tone

Pixels = NDArray[np.float64]
Mask = NDArray[np.bool_]

ATTRIBUTES = ("colour", "background", "shape", "size", "position", "texture")
_BORDER_PIXELS = 2
#: The last is drawn by an adapter only.
_KNOWN_SHAPES = (*SHAPES, "crescent")
#: Nothing smaller is a shape.
_LEAST_PIXELS = 30
#: Half way between the radii that `drawing` draws.
_SIZE_LIMITS_PIXELS = (13.5, 20.0)
#: Centres of centred shapes lie within 2.5 pixels of the middle, all others beyond 9.
_OFF_CENTRE_PIXELS = 6.0
#: Distance in RGB from which on a pixel is surely not the ground.
_OFF_GROUND = 45.0
_TEMPLATE_EDGE = 32


@dataclass(frozen=True)
class Verdict:
    """What the image shows. Where no shape is found, its words are empty and the mask is too."""

    colour: str
    background: str
    shape: str
    size: str
    position: str
    texture: str
    #: overlap of the shape with its template, from 0 to 1
    likeness: float
    mask: Mask


def judge(image: Image.Image) -> Verdict:
    """The verdict on one image."""
    pixels = _bring_to_size(image)
    ground = _median_of_border(pixels)
    background = name_colour(ground)
    colour, exact = find_colour(pixels, ground)
    if not colour:
        return Verdict("", background, "", "", "", "", 0.0, np.zeros(pixels.shape[:2], bool))
    mask = find_shape(pixels, ground, exact)
    if mask.sum() < _LEAST_PIXELS:
        return Verdict(colour, background, "", "", "", "", 0.0, mask)
    shape, likeness = name_shape(mask)
    radius = float(np.sqrt(mask.sum() / _area_of(shape)))
    size = name_size(radius)
    return Verdict(
        colour,
        background,
        shape,
        size,
        name_position(mask, shape, radius),
        "plain" if size == "small" else name_texture(pixels, mask, colour),  # no room for a period
        likeness,
        mask,
    )


def name_colour(colour: Pixels) -> str:
    """The nearest of the palette."""
    return min(COLOURS, key=lambda name: float(_distance(colour, np.array(PALETTE[name], float))))


def find_colour(pixels: Pixels, ground: Pixels) -> tuple[str, Pixels]:
    """The palette's colour that most pixels off the ground come nearest to, and its exact value here.

    Pixels of a texture's tone vote for nobody, and so do not turn the vote.
    """
    off = pixels[_distance(pixels, ground) > _OFF_GROUND]
    if len(off) < _LEAST_PIXELS:
        return "", ground
    candidates = np.array([*PALETTE.values(), *map(tone, PALETTE.values())], float)
    nearest = _distance(off[:, None], candidates).argmin(1)
    winner = int(np.bincount(nearest, minlength=len(candidates))[: len(COLOURS)].argmax())
    if not (nearest == winner).any():
        return "", ground
    exact: Pixels = np.median(off[nearest == winner], axis=0)
    return COLOURS[winner], exact


def find_shape(pixels: Pixels, ground: Pixels, colour: Pixels) -> Mask:
    """The largest connected patch that is nearer to the colour, or to its texture's tone, than to the ground."""
    red, green, blue = (int(part) for part in colour)
    dark = np.array(tone((red, green, blue)), float)
    away = _distance(pixels, ground)
    mask = np.minimum(_distance(pixels, colour), _distance(pixels, dark)) < away
    return _largest_patch(_shrink(_grow(mask)) | mask)


def name_shape(mask: Mask) -> tuple[str, float]:
    """The template that overlaps best with the mask, both stretched to the same frame."""
    rows, columns = np.nonzero(mask)
    cut = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    frame = _to_frame(Image.fromarray(cut.astype(np.uint8) * 255))
    overlaps = {
        shape: float(np.minimum(frame, template).sum() / np.maximum(frame, template).sum())
        for shape, template in _templates().items()
    }
    best = max(overlaps, key=lambda shape: overlaps[shape])
    return best, overlaps[best]


def name_size(radius: float) -> str:
    """Small, medium or large."""
    small, medium = _SIZE_LIMITS_PIXELS
    if radius < small:
        return "small"
    return "medium" if radius < medium else "large"


def name_position(mask: Mask, shape: str, radius: float) -> str:
    """One of nine places. A large shape has no room to be anywhere but in the middle."""
    rows, columns = np.nonzero(mask)
    lowest, highest = _extent_of(shape)
    off = radius * (lowest + highest) / 2  # a star's frame is not centred on the star
    down = (rows.min() + rows.max() + 1 - mask.shape[0]) / 2 - off
    across = (columns.min() + columns.max() + 1 - mask.shape[1]) / 2
    vertical = "top" if down < -_OFF_CENTRE_PIXELS else "bottom" if down > _OFF_CENTRE_PIXELS else ""
    horizontal = "left" if across < -_OFF_CENTRE_PIXELS else "right" if across > _OFF_CENTRE_PIXELS else ""
    return f"{vertical} {horizontal}".strip() or "center"


def name_texture(pixels: Pixels, mask: Mask, colour: str) -> str:
    """Plain where the inside hardly changes, striped where rows differ and dotted where places do."""
    inside = _shrink(mask)
    if inside.sum() < _LEAST_PIXELS:
        return "plain"
    light, dark = np.array(PALETTE[colour], float), np.array(tone(PALETTE[colour]), float)
    towards = dark - light
    amount = ((pixels - light) @ towards / (towards @ towards)).clip(-0.2, 1.2)
    spread = float(amount[inside].std())
    if spread < 0.13:
        return "plain"
    counts = inside.sum(1)
    rows = counts >= 4
    means = (amount * inside).sum(1)[rows] / counts[rows]
    between = float(np.average((means - amount[inside].mean()) ** 2, weights=counts[rows]))
    return "striped" if between > 0.5 * spread**2 else "dotted"


def measure_overlap(first: Mask, second: Mask) -> float:
    """Intersection over union."""
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 0.0


def _bring_to_size(image: Image.Image) -> Pixels:
    scale = EDGE_PIXELS / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    small = image.convert("RGB")
    if size != small.size:
        small = small.resize(size, Image.Resampling.BOX)
    return np.asarray(small, dtype=float)


def _median_of_border(pixels: Pixels) -> Pixels:
    edge = _BORDER_PIXELS
    sides = (pixels[:edge], pixels[-edge:], pixels[:, :edge], pixels[:, -edge:])
    border: Pixels = np.median(np.concatenate([side.reshape(-1, 3) for side in sides]), axis=0)
    return border


def _distance(pixels: Pixels, colour: Pixels) -> Pixels:
    distance: Pixels = np.sqrt(((pixels - colour) ** 2).sum(-1))
    return distance


def _neighbours(mask: Mask) -> list[Mask]:
    padded = np.pad(mask, 1)
    return [padded[1:-1, 1:-1], padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]


def _grow(mask: Mask) -> Mask:
    grown: Mask = np.logical_or.reduce(_neighbours(mask))
    return grown


def _shrink(mask: Mask) -> Mask:
    shrunk: Mask = np.logical_and.reduce(_neighbours(mask))
    return shrunk


def _largest_patch(mask: Mask) -> Mask:
    left, best = mask.copy(), np.zeros_like(mask)
    while left.sum() > best.sum():
        patch = np.zeros_like(mask)
        patch[tuple(np.argwhere(left)[0])] = True
        while True:
            grown = _grow(patch) & mask
            if (grown == patch).all():
                break
            patch = grown
        left &= ~patch
        if patch.sum() > best.sum():
            best = patch
    return best


def _to_frame(mask: Image.Image) -> Pixels:
    return np.asarray(mask.resize((_TEMPLATE_EDGE, _TEMPLATE_EDGE), Image.Resampling.BOX), dtype=float) / 255


@cache
def _templates() -> dict[str, Pixels]:
    templates = {}
    for shape in _KNOWN_SHAPES:
        canvas = Image.new("L", (256, 256), 0)
        ImageDraw.Draw(canvas).polygon(outline(shape, 128, 128, 80), fill=255)
        templates[shape] = _to_frame(canvas.crop(canvas.getbbox()))
    return templates


@cache
def _area_of(shape: str) -> float:
    """Of the shape with radius 1, by the shoelace formula."""
    corners = outline(shape, 0, 0, 1)
    return abs(sum(x * w - z * y for (x, y), (z, w) in zip(corners, corners[1:] + corners[:1], strict=True))) / 2


@cache
def _extent_of(shape: str) -> tuple[float, float]:
    heights = [y for _, y in outline(shape, 0, 0, 1)]
    return min(heights), max(heights)
