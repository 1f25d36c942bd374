"""Preprocessors, which make a control image from an ordinary image: their names, and their options with ranges.

Data only: the arithmetic is in `app/inputs/codec/preprocessors.py`. Names and defaults follow the ControlNet
extension of AUTOMATIC1111's web UI, https://github.com/Mikubill/sd-webui-controlnet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: Shorter side of a control image in pixels.
MIN_RESOLUTION, MAX_RESOLUTION = 64, 2048
#: The most pixels of a control image, whatever its aspect.
MAX_MAP_PIXELS = MAX_RESOLUTION**2
#: Width or height of a control image of an extreme aspect; OpenCV cannot take twice as many.
MAX_MAP_SIDE = 16_384


@dataclass(frozen=True)
class PreprocessorOption:
    """A number that a preprocessor takes.

    Attributes:
        minimum, maximum: the range, both included.
        default: None where it follows from the image or the job.
        is_integer: whether it must be whole.
    """

    id: str
    minimum: float
    maximum: float
    default: float | None
    description: str
    is_integer: bool = False

    @property
    def range(self) -> str:
        """The range in words."""
        return f"{self.minimum:g}–{self.maximum:.10g}"


#: The option that every preprocessor has.
RESOLUTION = PreprocessorOption(
    "resolution",
    MIN_RESOLUTION,
    MAX_RESOLUTION,
    None,
    "Shorter side in pixels to which the image is scaled before the control image is made. Default: in a job, "
    "such that the control image is as large as the output needs it; else the image's own.",
    is_integer=True,
)


@dataclass(frozen=True)
class Preprocessor:
    """A preprocessor.

    Attributes:
        own_options: beside the resolution.
    """

    id: str
    title: str
    own_options: tuple[PreprocessorOption, ...] = ()

    @property
    def options(self) -> tuple[PreprocessorOption, ...]:
        """All options."""
        return (*self.own_options, RESOLUTION)

    def option(self, id: str) -> PreprocessorOption | None:
        """Return the option with this name; None if there is none."""
        return next((option for option in self.options if option.id == id), None)


_ROWS = (
    Preprocessor(
        "canny",
        "White contours on black, by Canny's detector",
        (
            PreprocessorOption(
                "low_threshold",
                1,
                255,
                100,
                "Gradient from which an edge goes on; at most `high_threshold`.",
                True,
            ),
            PreprocessorOption("high_threshold", 1, 255, 200, "Gradient from which an edge begins.", True),
        ),
    ),
    Preprocessor(
        "lineart",
        "White lines on black where the image is darker than around",
        (
            PreprocessorOption("sigma", 0.5, 32, 6, "Radius in pixels of what counts as around."),
            PreprocessorOption(
                "intensity_threshold", 0, 64, 8, "Difference of levels below which nothing is drawn."
            ),
        ),
    ),
    Preprocessor(
        "scribble",
        "White strokes on black, by extended differences of Gaussians",
        (PreprocessorOption("threshold", 1, 64, 32, "Difference of levels from which a stroke is drawn."),),
    ),
    Preprocessor(
        "threshold",
        "White where the image is bright, black elsewhere",
        (PreprocessorOption("threshold", 0, 254, 127, "Level of 255 above which a pixel is white.", True),),
    ),
    Preprocessor("invert", "Negative of the image: black lines on white become white on black"),
    Preprocessor(
        "blur",
        "The image without details",
        (PreprocessorOption("sigma", 0.1, 64, 9, "Radius in pixels of the Gaussian."),),
    ),
    Preprocessor(
        "tile",
        "The image with fewer pixels, scaled up again",
        (PreprocessorOption("factor", 1, 16, 4, "How many times fewer pixels each side has."),),
    ),
    Preprocessor(
        "color",
        "Squares of the image's colors",
        (PreprocessorOption("cell", 4, 256, 64, "Side of a square in pixels.", True),),
    ),
    Preprocessor(
        "gray",
        "The image without colors",
        (PreprocessorOption("gamma", 0.1, 4, 1, "Exponent applied to the levels; above 1 is darker."),),
    ),
    Preprocessor(
        "shuffle",
        "The image's colors and textures at other places",
        (
            PreprocessorOption("seed", 0, 2**32 - 1, 0, "Seed of the places.", True),
            PreprocessorOption("distance", 32, 1024, 256, "Distance in pixels between drawn places.", True),
        ),
    ),
)

PREPROCESSORS: Mapping[str, Preprocessor] = {row.id: row for row in _ROWS}
