"""Each preprocessor makes what its name says of a photo, the same bytes each time, at the resolution asked for."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from app.inputs.codec.preprocessors import make_map
from contracts.catalogue.rows.preprocessors import MAX_MAP_PIXELS, MAX_MAP_SIDE, PREPROCESSORS
from contracts.requests.images.preprocessing import resolve_options

SIDE = 96
#: The dark disk of `photo`: left, upper, right, lower.
DISK = (24, 24, 72, 72)


def photo(size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """A dark red disk on light yellow."""
    image = Image.new("RGB", (SIDE, SIDE), (240, 230, 140))
    ImageDraw.Draw(image).ellipse(DISK, fill=(120, 20, 20))
    return image if size == image.size else image.resize(size)


def made(name: str, image: Image.Image | None = None, resolution: int = SIDE, **options: float) -> np.ndarray:
    """The control image that a preprocessor makes, as values (height, width, 3)."""
    values = resolve_options(PREPROCESSORS[name], options, resolution)
    return np.asarray(make_map(photo() if image is None else image, name, values)).astype(int)


@pytest.mark.parametrize("name", PREPROCESSORS)
def test_the_same_image_and_options_make_the_same_control_image_of_the_resolution(name: str) -> None:
    first, second = made(name, photo((80, 120)), 64), made(name, photo((80, 120)), 64)

    assert first.shape == (96, 64, 3)
    assert (first == second).all()


@pytest.mark.parametrize("name", PREPROCESSORS)
@pytest.mark.parametrize("size", [(1, 1), (900, 1)])
def test_images_of_any_aspect_are_made_within_the_limits(name: str, size: tuple[int, int]) -> None:
    height, width, _ = made(name, photo(size), 64).shape

    assert max(width, height) <= MAX_MAP_SIDE
    assert width * height <= MAX_MAP_PIXELS * 1.01


def test_canny_draws_the_outline_alone() -> None:
    edges = made("canny")[..., 0]

    assert set(np.unique(edges)) == {0, 255}
    radius = np.hypot(*(np.argwhere(edges) - 48).T)
    assert 22 < radius.min() <= radius.max() < 27
    assert len(radius) > 100  # it is closed


def test_options_change_what_is_made() -> None:
    faint = Image.fromarray(np.where(np.arange(64) < 32, 120, 140).astype(np.uint8)[None].repeat(64, 0))

    assert not made("canny", faint, 64).any()
    assert made("canny", faint, 64, low_threshold=20, high_threshold=40).any()
    assert (made("threshold", faint, 64, threshold=130)[0, :, 0] == [0] * 32 + [255] * 32).all()
    assert (made("threshold", faint, 64, threshold=150) == 0).all()
    assert (made("shuffle", seed=1) != made("shuffle", seed=2)).any()
    assert made("gray", gamma=2).mean() < made("gray").mean() < made("gray", gamma=0.5).mean()
    assert made("blur", sigma=20).std() < made("blur", sigma=2).std()


def test_lines_are_white_where_the_image_is_darker_than_around() -> None:
    line = Image.new("RGB", (SIDE, SIDE), "white")
    ImageDraw.Draw(line).line((0, 48, SIDE, 48), fill="black", width=2)

    lines, strokes = made("lineart", line)[..., 0], made("scribble", line)[..., 0]

    assert lines[48, 48] > 100
    assert strokes[48, 48] == 255
    assert lines[10].max() == strokes[10].max() == 0


def test_colors_stay_or_go_as_the_name_says() -> None:
    pixels = np.asarray(photo()).astype(int)

    assert (made("invert") == 255 - pixels).all()
    gray = made("gray")
    assert (gray[..., 0] == gray[..., 1]).all()
    assert (gray[..., 0] == gray[..., 2]).all()
    cells = made("color", cell=32)
    assert (cells == cells[::32, ::32].repeat(32, 0).repeat(32, 1)).all()
    assert np.abs(made("tile", factor=2) - pixels).mean() < np.abs(made("tile", factor=16) - pixels).mean()


def test_what_is_transparent_is_white() -> None:
    drawing = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    ImageDraw.Draw(drawing).ellipse(DISK, fill=(0, 0, 0, 255))

    pixels = made("threshold", drawing)[..., 0]

    assert (pixels[0, 0], pixels[48, 48]) == (255, 0)
