"""Input images as they are stored: what is known of each, what a job does to it, and those that it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from contracts.catalogue.references import References
from contracts.errors import FieldProblem, InvalidRequest
from contracts.requests.images.fit import Area, Fit, Size, position_in
from contracts.requests.images.input_use import InputUse


@dataclass(frozen=True)
class StoredImage:
    """A decoded, normalized image: its storage key and its size in pixels.

    Attributes:
        color_profile: what was done about its color profile; None: nothing had to be.
        mask_source: of a mask: what was read as the mask, where that is not its brightness.
        white: of a mask: the box around its white, in pixels; None where it is not known.
    """

    key: str
    width: int
    height: int
    color_profile: str | None = None
    mask_source: str | None = None
    white: Area | None = None

    @property
    def size(self) -> Size:
        """Width and height."""
        return self.width, self.height


#: How the mask of an IP-Adapter's images is brought to the output's size, as diffusers does.
IMAGE_PROMPT_MASK_FIT: Fit = "stretch"
#: Field path (`image`, `mask_image`, `controls.0.image`, `references.0`, `ip_adapters.0.images.0`) -> image.
StoredImages = Mapping[str, StoredImage]


def check_aspects(known: References | None, sizes: Mapping[str, Size]) -> None:
    """Refuse references that are too narrow for the model."""
    most = None if known is None else known.max_aspect
    problems = [
        FieldProblem(
            path, f"is too narrow: its sides may be as 1 to {most}, got {width} × {height}; crop it", most
        )
        for path, (width, height) in sizes.items()
        if most is not None and max(width, height) > most * min(width, height)
    ]
    if problems:
        raise InvalidRequest(problems)


def use_of(field: str, image: StoredImage, read_size: Size, output: Size, fit: Fit) -> InputUse:
    """Describe what is done to an input image, for the receipt; `read_size` is what it is brought to."""
    if field.startswith("ip_adapters.") and ".images." in field:
        # An image encoder looks at the middle of it, whatever the output's size.
        profile = image.color_profile
        return InputUse(field=field, width=image.width, height=image.height, color_profile=profile)
    if field.startswith("ip_adapters."):
        fit = IMAGE_PROMPT_MASK_FIT
    position, differs = position_in(image.size, read_size, fit), image.size != read_size
    is_whole = position.crop == (0, 0, *image.size)
    left, upper, right, lower = position.crop
    return InputUse(
        field=field,
        width=image.width,
        height=image.height,
        fit=fit if differs else None,
        read_size=None if read_size == output else read_size,
        crop=None if is_whole else (round(left, 2), round(upper, 2), round(right, 2), round(lower, 2)),
        area=None if position.area == (0, 0, *read_size) else position.area,
        color_profile=image.color_profile,
        mask_source=image.mask_source,
    )


def check_mask_size(image: StoredImage, mask: StoredImage) -> None:
    """Refuse a mask that is not as large as its image.

    Raises:
        InvalidRequest: for `mask_image`.
    """
    if image.size != mask.size:
        expected = f"{image.width} × {image.height}"
        message = f"must be as large as image ({expected}), got {mask.width} × {mask.height}"
        raise InvalidRequest([FieldProblem("mask_image", message, expected)])


def check_mask(images: StoredImages, output: Size, fit: Fit) -> None:
    """Refuse a mask that does not belong to the image, or whose white is cut off with the image's edges."""
    image, mask = images.get("image"), images.get("mask_image")
    if image is None or mask is None:
        return
    check_mask_size(image, mask)
    left, upper, right, lower = position_in(mask.size, output, fit).crop
    white = mask.white
    if white and (white[2] <= left or white[0] >= right or white[3] <= upper or white[1] >= lower):
        message = (
            f"changes no pixel: what it regenerates is within {white}, and of the image only "
            f"({left:g}, {upper:g}, {right:g}, {lower:g}) is used with fit {fit} at {output[0]} × {output[1]}; "
            "use fit contain or pad, or a size with the image's aspect"
        )
        raise InvalidRequest([FieldProblem("mask_image", message)])
