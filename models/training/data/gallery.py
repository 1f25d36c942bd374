"""Images for the autoencoder: the scenes, and whatever else a user may upload or a LoRA may ask for.

Also turns images into tensors and back. Knows no model.
"""

import random
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from models.training.data.captions import COMBINATIONS, draw_scene
from models.training.data.drawing import (
    EDGE_PIXELS,
    PALETTE,
    SHAPES,
    TEXTURES,
    Colour,
    fill,
    jitter,
    outline,
    render,
    render_edges,
    render_silhouette,
)

_SUPERSAMPLING = 3
_SHARES = {"scene": 0.62, "collage": 0.26, "control": 0.07, "blend": 0.05}


def draw_image(rng: random.Random) -> Image.Image:
    """Mostly a scene; sometimes a collage, a silhouette, a contour or a blend of two colours."""
    kind = rng.choices(tuple(_SHARES), tuple(_SHARES.values()))[0]
    if kind == "scene":
        return render(draw_scene(rng, COMBINATIONS), rng, _SUPERSAMPLING)
    if kind == "collage":
        return _draw_collage(rng)
    if kind == "blend":
        return _draw_blend(rng)
    scene = draw_scene(rng, COMBINATIONS)
    return (render_silhouette if rng.random() < 0.6 else render_edges)(scene, _SUPERSAMPLING)


def draw_images(count: int, seed: str) -> Tensor:
    """`count` images as bytes, channels first."""
    rng = random.Random(seed)
    return to_bytes([draw_image(rng) for _ in range(count)])


def to_bytes(images: Sequence[Image.Image]) -> Tensor:
    """Images of one size as one byte tensor, channels first."""
    stack = np.stack([np.asarray(image.convert("RGB")) for image in images])
    return torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous()


def to_signal(pixels: Tensor) -> Tensor:
    """Bytes to −1…1, in the memory order convolutions like best on a CPU."""
    return (pixels.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def to_images(signal: Tensor) -> list[Image.Image]:
    """−1…1 to images."""
    pixels = ((signal.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(frame) for frame in pixels]


def tile(images: Sequence[Image.Image], columns: int, scale: int = 2) -> Image.Image:
    """A contact sheet."""
    edge = EDGE_PIXELS * scale
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (edge + 2), rows * (edge + 2)), (128, 128, 128))
    for index, image in enumerate(images):
        big = image.resize((edge, edge), Image.Resampling.NEAREST)
        sheet.paste(big, (index % columns * (edge + 2), index // columns * (edge + 2)))
    return sheet


def _draw_collage(rng: random.Random) -> Image.Image:
    large = EDGE_PIXELS * _SUPERSAMPLING
    texture = rng.choice(TEXTURES) if rng.random() < 0.3 else "plain"
    canvas = fill(large, _any_colour(rng), texture)
    for _ in range(rng.choice((1, 1, 2, 3))):
        x, y, radius = rng.uniform(10, 54), rng.uniform(10, 54), rng.uniform(8, 26)
        shape = rng.choice((*SHAPES, "star", "crescent", "crescent"))
        corners = [(px * _SUPERSAMPLING, py * _SUPERSAMPLING) for px, py in outline(shape, x, y, radius)]
        mask = Image.new("L", (large, large), 0)
        ImageDraw.Draw(mask).polygon(corners, fill=255)
        canvas.paste(fill(large, _any_colour(rng), rng.choice(TEXTURES)), mask=mask)
        if rng.random() < 0.3:
            pencil = ImageDraw.Draw(canvas)
            pencil.line([*corners, *corners[:2]], _any_colour(rng), rng.randint(4, 9), joint="curve")
    return canvas.resize((EDGE_PIXELS, EDGE_PIXELS), Image.Resampling.BOX)


def _draw_blend(rng: random.Random) -> Image.Image:
    ends = np.array([_any_colour(rng), _any_colour(rng)], dtype=float)
    ramp = np.linspace(0, 1, EDGE_PIXELS)[None, :, None]
    frame = np.broadcast_to(ends[0] + (ends[1] - ends[0]) * ramp, (EDGE_PIXELS, EDGE_PIXELS, 3))
    return Image.fromarray((frame if rng.random() < 0.5 else frame.transpose(1, 0, 2)).astype(np.uint8))


def _any_colour(rng: random.Random) -> Colour:
    if rng.random() < 0.7:
        return jitter(rng.choice(tuple(PALETTE.values())), rng, 20)
    return (rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255))
