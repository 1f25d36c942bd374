"""Kinds of control of unions, by the names of the ControlNet extension."""

from __future__ import annotations

import pytest

from app.dialects.a1111.union_types import UNKNOWN, kind_problems, mode_of

#: As their authors name those of SDXL, and those of FLUX.1.
SDXL = ("openpose", "depth", "hed/pidi/scribble/ted", "canny/lineart/anime_lineart/mlsd", "normal", "segment")
FLUX = ("canny", "tile", "depth", "blur", "pose", "gray", "lq")


@pytest.mark.parametrize(
    ("control_type", "modes", "number"),
    [
        ("OpenPose", SDXL, 0),
        ("Soft Edge", SDXL, 2),
        ("Hard Edge", SDXL, 3),
        ("Normal Map", SDXL, 4),
        ("Segmentation", SDXL, 5),
        ("Tile", SDXL, None),
        ("OpenPose", FLUX, 4),
        ("Hard Edge", FLUX, 0),
        ("gray", FLUX, 5),
        ("depth", FLUX, 2),
        ("Hard Edge", ("canny", "mlsd"), None),  # which of them?
        ("mlsd", ("canny", "mlsd"), 1),
        (UNKNOWN, SDXL, None),
        ("Depth", (), None),
    ],
)
def test_a_kind_is_found_among_the_names_of_a_row(
    control_type: str, modes: tuple[str, ...], number: int | None
) -> None:
    assert mode_of(control_type, modes) == number


def test_a_kind_that_the_controlnet_does_not_have_is_refused_with_those_that_it_has() -> None:
    (wrong,) = kind_problems("unit", "Tile", "union", SDXL)
    assert wrong.message == "must be one kind of the union union, got 'Tile'"
    assert wrong.allowed == list(SDXL)
    (plain,) = kind_problems("unit", "Depth", "canny", ())
    assert plain.message == "is for unions, and canny is not one: leave it out; got 'Depth'"
    assert not [*kind_problems("unit", UNKNOWN, "canny", ()), *kind_problems("unit", "Depth", "union", SDXL)]
