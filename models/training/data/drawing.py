"""Draws a scene: one coloured, perhaps textured shape on a plain ground, 64×64. Knows no captions, no torch."""

import math
import random
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

EDGE_PIXELS = 64
PALETTE: dict[str, Colour] = {
    "red": (220, 35, 35),
    "green": (35, 160, 55),
    "blue": (40, 70, 220),
    "yellow": (245, 220, 45),
    "purple": (140, 45, 170),
    "cyan": (60, 205, 225),
    "white": (245, 245, 245),
    "black": (15, 15, 15),
}
COLOURS = tuple(PALETTE)
SHAPES = ("circle", "square", "triangle", "star", "cross")
TEXTURES = ("plain", "striped", "dotted")
#: Half the width of a shape in pixels; the gaps between the ranges are what the judge decides by.
RADII_PIXELS = {"small": (10.0, 12.0), "medium": (15.0, 18.0), "large": (22.0, 25.0)}
SIZES = tuple(RADII_PIXELS)
#: Direction of each position, as seen: x to the right, y downwards.
POSITIONS: dict[str, tuple[int, int]] = {
    "center": (0, 0),
    "left": (-1, 0),
    "right": (1, 0),
    "top": (0, -1),
    "bottom": (0, 1),
    "top left": (-1, -1),
    "top right": (1, -1),
    "bottom left": (-1, 1),
    "bottom right": (1, 1),
}
#: Equal to one latent cell of an 8× autoencoder, so that a texture looks the same in every cell.
TEXTURE_PERIOD_PIXELS = 8
_STRIPE_PIXELS = 3
_DOT_RADIUS_PIXELS = 2.0


@dataclass(frozen=True)
class Scene:
    """What is in the image; the words say roughly, the numbers exactly."""

    shape: str
    colour: str
    background: str
    size: str = "medium"
    position: str = "center"
    texture: str = "plain"
    radius: float = 16.5
    x: float = 32.0
    y: float = 32.0


def place(scene: Scene, rng: random.Random) -> Scene:
    """The same scene with radius and centre drawn to fit its words."""
    radius = rng.uniform(*RADII_PIXELS[scene.size])
    room = EDGE_PIXELS / 2 - 1.1 * radius - 1
    across, down = (
        direction * room * rng.uniform(0.85, 1.0) if direction else rng.uniform(-2.5, 2.5)
        for direction in POSITIONS[scene.position]
    )
    return replace(scene, radius=radius, x=EDGE_PIXELS / 2 + across, y=EDGE_PIXELS / 2 + down)


def outline(shape: str, x: float, y: float, radius: float) -> list[Point]:
    """The corners of a shape; a circle is a polygon of many."""
    if shape == "circle":
        return _turned(x, y, [radius] * 48)
    if shape == "square":
        half = radius * 0.88
        return [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]
    if shape == "triangle":
        return [(x, y - radius), (x + radius, y + radius * 0.8), (x - radius, y + radius * 0.8)]
    if shape == "star":
        return _turned(x, y, [radius * 1.08, radius * 0.45] * 5)
    if shape == "cross":
        return _cross(x, y, radius)
    if shape == "crescent":
        return _crescent(x, y, radius)
    raise ValueError(f"no shape is called {shape!r}")


def _turned(x: float, y: float, radii: list[float]) -> list[Point]:
    step = 2 * math.pi / len(radii)
    return [
        (x + radius * math.sin(index * step), y - radius * math.cos(index * step))
        for index, radius in enumerate(radii)
    ]


def _cross(x: float, y: float, radius: float) -> list[Point]:
    arm, half = radius, radius * 0.34
    quarter = [(half, -arm), (half, -half), (arm, -half)]
    corners: list[Point] = []
    for _ in range(4):
        corners += quarter
        quarter = [(-across, down) for down, across in quarter]
    return [(x + across, y + down) for across, down in corners]


def _crescent(x: float, y: float, radius: float) -> list[Point]:
    """The one shape no base checkpoint knows: an adapter with its own word teaches it."""
    outer = [(math.radians(angle), radius) for angle in range(40, 321, 10)]
    left = [(x + r * math.cos(a), y + r * math.sin(a)) for a, r in outer]
    top, bottom = left[-1], left[0]
    inner_radius = math.hypot(top[0] - x - 0.35 * radius, top[1] - y)
    sweep = math.degrees(math.atan2(top[1] - y, top[0] - x - 0.35 * radius)) % 360
    inner = [math.radians(angle) for angle in range(int(sweep), int(360 - sweep), -10)]
    return [
        *left,
        *((x + 0.35 * radius + inner_radius * math.cos(a), y + inner_radius * math.sin(a)) for a in inner),
        bottom,
    ]


def tone(colour: Colour) -> Colour:
    """The second colour of a texture: darker, but for black lighter."""
    red, green, blue = colour
    if 0.3 * red + 0.59 * green + 0.11 * blue > 50:
        return (int(red * 0.4), int(green * 0.4), int(blue * 0.4))
    return (int(red * 0.4 + 153), int(green * 0.4 + 153), int(blue * 0.4 + 153))


def jitter(colour: Colour, rng: random.Random, amount: int = 5) -> Colour:
    """A colour a little off, so that no model learns one exact value."""
    red, green, blue = (max(0, min(255, part + rng.randint(-amount, amount))) for part in colour)
    return (red, green, blue)


def fill(size: int, colour: Colour, texture: str) -> Image.Image:
    """A sheet of cloth: `size` pixels wide, which stand for the 64 of an image."""
    sheet = Image.new("RGB", (size, size), colour)
    pencil, scale, dark = ImageDraw.Draw(sheet), size / EDGE_PIXELS, tone(colour)
    starts = range(0, EDGE_PIXELS, TEXTURE_PERIOD_PIXELS)
    middle = TEXTURE_PERIOD_PIXELS / 2
    if texture == "striped":
        for top in (start + middle - _STRIPE_PIXELS / 2 for start in starts):
            pencil.rectangle((0, top * scale, size, (top + _STRIPE_PIXELS) * scale - 1), fill=dark)
    elif texture == "dotted":
        reach = _DOT_RADIUS_PIXELS * scale
        for x in ((start + middle) * scale for start in starts):
            for y in ((start + middle) * scale for start in starts):
                pencil.ellipse((x - reach, y - reach, x + reach, y + reach), fill=dark)
    return sheet


def render(scene: Scene, rng: random.Random | None = None, supersampling: int = 4) -> Image.Image:
    """The image. With `rng` the two colours are jittered, without it they are the palette's."""
    colour, background = PALETTE[scene.colour], PALETTE[scene.background]
    if rng is not None:
        colour, background = jitter(colour, rng), jitter(background, rng)
    large = EDGE_PIXELS * supersampling
    canvas = Image.new("RGB", (large, large), background)
    canvas.paste(fill(large, colour, scene.texture), mask=_mask(scene, supersampling))
    return canvas.resize((EDGE_PIXELS, EDGE_PIXELS), Image.Resampling.BOX)


def render_silhouette(scene: Scene, supersampling: int = 4) -> Image.Image:
    """White shape on black: what the silhouette ControlNet is conditioned on."""
    mask = _mask(scene, supersampling).resize((EDGE_PIXELS, EDGE_PIXELS), Image.Resampling.BOX)
    return mask.convert("RGB")


def render_edges(scene: Scene, supersampling: int = 4) -> Image.Image:
    """White contour, one pixel and a half wide, on black: what a Canny detector makes of the shape."""
    large = EDGE_PIXELS * supersampling
    canvas = Image.new("L", (large, large), 0)
    corners = _scaled(scene, supersampling)
    width = round(1.5 * supersampling)
    ImageDraw.Draw(canvas).line([*corners, corners[0], corners[1]], fill=255, width=width, joint="curve")
    return canvas.resize((EDGE_PIXELS, EDGE_PIXELS), Image.Resampling.BOX).convert("RGB")


def _scaled(scene: Scene, supersampling: int) -> list[Point]:
    corners = outline(scene.shape, scene.x, scene.y, scene.radius)
    return [(x * supersampling, y * supersampling) for x, y in corners]


def _mask(scene: Scene, supersampling: int) -> Image.Image:
    large = EDGE_PIXELS * supersampling
    mask = Image.new("L", (large, large), 0)
    ImageDraw.Draw(mask).polygon(_scaled(scene, supersampling), fill=255)
    return mask
