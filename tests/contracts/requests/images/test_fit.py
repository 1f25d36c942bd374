"""Where an image is in an output of another shape."""

from __future__ import annotations

import pytest

from contracts.requests.images.fit import Fit, position_in


@pytest.mark.parametrize("fit", ["cover", "contain", "stretch", "pad"])
@pytest.mark.parametrize("scale", [1, 2, 5])
def test_with_the_same_aspect_the_whole_image_covers_the_whole_output(fit: Fit, scale: int) -> None:
    position = position_in((48 * scale, 32 * scale), (48, 32), fit)

    assert position.crop == (0, 0, 48 * scale, 32 * scale)
    assert position.area == (0, 0, 48, 32)


@pytest.mark.parametrize("source", [(256, 64), (64, 256), (101, 99), (4032, 3024), (1, 500)])
@pytest.mark.parametrize("output", [(64, 64), (128, 64), (64, 200)])
def test_only_stretch_changes_the_aspect(source: tuple[int, int], output: tuple[int, int]) -> None:
    for fit in ("cover", "pad", "contain"):
        left, upper, right, lower = position_in(source, output, fit).crop
        x, y, right_x, lower_y = position_in(source, output, fit).area
        across, down = (right_x - x) / (right - left), (lower_y - y) / (lower - upper)
        assert 0 <= left < right <= source[0]
        assert 0 <= upper < lower <= source[1]
        # An area has whole pixels, and at least one.
        assert abs(across - down) * min(right - left, lower - upper) <= 1
        assert abs((left + right) - source[0]) < 1e-6
        assert abs((x + right_x) - output[0]) <= 1


def test_cover_fills_the_output_and_pad_shows_the_whole_image() -> None:
    assert position_in((256, 64), (64, 64), "cover").area == (0, 0, 64, 64)
    assert position_in((256, 64), (64, 64), "cover").crop == (96, 0, 160, 64)
    assert position_in((256, 64), (64, 64), "pad").area == (0, 24, 64, 40)
    assert position_in((256, 64), (64, 64), "pad").crop == (0, 0, 256, 64)
