"""The size of a job's images follows the input image as nearly as the model can generate it."""

from __future__ import annotations

import pytest

from contracts.requests.fields import MAX_SIDE, MIN_SIDE
from contracts.requests.images.output_size import SizeRules, output_size

SDXL = SizeRules(multiple=8, max_pixels=2048 * 2048, own=(1024, 1024))
SMALL = SizeRules(multiple=16, max_pixels=4096, own=(64, 64))


@pytest.mark.parametrize("rules", [SDXL, SMALL, SizeRules(8, 65_536, (64, 64))])
@pytest.mark.parametrize("image", [(4032, 3024), (3024, 4032), (8160, 6120), (1, 1), (16_384, 1), (7, 16_384)])
def test_every_image_gets_a_size_that_the_model_can_generate(rules: SizeRules, image: tuple[int, int]) -> None:
    sides = [None, MIN_SIDE, rules.own[0]]
    for width in sides:
        for height in sides:
            for fit in ("cover", "contain"):
                size = output_size(rules, width, height, image, is_start=True, fit=fit)
                assert all(MIN_SIDE <= side <= MAX_SIDE for side in size)
                assert all(side % rules.multiple == 0 for side in size)
                assert size[0] * size[1] <= rules.max_pixels


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ((1024, 1024), (1024, 1024)),
        ((1280, 960), (1280, 960)),  # its own
        ((4032, 3024), (1184, 888)),  # a photo: the aspect, and about a megapixel
        ((3024, 4032), (888, 1184)),
        ((50, 50), (1024, 1024)),
    ],
)
def test_without_a_size_it_is_the_images_own_or_the_models_own_in_its_aspect(
    image: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert output_size(SDXL, None, None, image, is_start=True, fit="cover") == expected


def test_an_image_that_is_only_a_guide_does_not_decide_the_size_unless_one_side_is_given() -> None:
    assert output_size(SDXL, None, None, (512, 256), is_start=False, fit="cover") == (1024, 1024)
    assert output_size(SDXL, 512, None, (512, 256), is_start=False, fit="cover") == (512, 256)
    assert output_size(SDXL, None, None, None, is_start=False, fit="cover") == (1024, 1024)


def test_both_sides_are_the_output_and_with_contain_the_most() -> None:
    assert output_size(SDXL, 512, 512, (1000, 500), is_start=True, fit="pad") == (512, 512)
    assert output_size(SDXL, 512, 512, (1000, 500), is_start=True, fit="contain") == (512, 256)
    assert output_size(SDXL, 512, 512, (9000, 500), is_start=True, fit="contain") == (512, 64)
