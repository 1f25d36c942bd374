"""What a mask selects is filled with its surroundings; the rest stays as it is, bit for bit."""

from __future__ import annotations

import pytest
from PIL import Image, ImageChops

from app.inputs.codec.fill import fill_masked, join_files, split_files
from app.inputs.codec.limits import TooLarge
from tests.support.images import draw_shape, framed_mask


def test_a_hole_takes_the_colors_around_it_and_the_rest_stays() -> None:
    image = Image.new("RGB", (64, 64), (200, 40, 10))
    image.paste((0, 255, 0), (8, 8, 56, 56))

    filled = fill_masked(image, framed_mask())

    difference = ImageChops.difference(filled, Image.new("RGB", (64, 64), (200, 40, 10)))
    levels = [number % 256 for number, count in enumerate(difference.histogram()) if count]
    assert max(levels) <= 4  # averages are whole numbers
    kept = fill_masked(draw_shape(), Image.new("L", (64, 64), 0))
    assert kept.tobytes() == draw_shape().tobytes()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (65, 3)])
def test_images_of_any_size_and_mode_are_filled(size: tuple[int, int]) -> None:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        filled = fill_masked(Image.new(mode, size), Image.new("L", size, 255))
        assert (filled.mode, filled.size) == ("RGB", size)
        assert filled.getpixel((0, 0)) == (127, 127, 127)  # there are no surroundings


def test_two_files_come_out_of_one_piece() -> None:
    assert split_files(join_files(b"ab", b"c")) == (b"ab", b"c")
    assert split_files(join_files(b"", b"")) == (b"", b"")


def test_an_image_that_would_take_too_much_memory_is_refused() -> None:
    with pytest.raises(TooLarge, match="12000000"):
        fill_masked(Image.new("1", (4000, 3001)), Image.new("1", (4000, 3001)))
