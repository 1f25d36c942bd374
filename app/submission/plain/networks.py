"""What the checks of tasks share that run a network of the catalogue on an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from contracts.catalogue.catalogue import NetworkSpec
from contracts.errors import FieldProblem, InvalidRequest
from contracts.requests.images.input_use import InputUse
from contracts.requests.images.stored_image import StoredImage

_AnyNetwork = TypeVar("_AnyNetwork", bound=NetworkSpec)


def find_network(noun: str, rows: Sequence[_AnyNetwork], id: str | None) -> _AnyNetwork:
    """Return the row that a request names in `model`, or the first.

    Args:
        noun: what it is called; its list is at `/v1/` and the plural of this.

    Raises:
        InvalidRequest: there is none.
    """
    if not rows:
        message = f"this service has no {noun}s; its operator can add rows [[{noun}s]] to the catalogue"
        raise InvalidRequest([FieldProblem("model", message)])
    found = next((row for row in rows if row.id == (id or rows[0].id)), None)
    if found is None:
        message = f"{id!r} is not one of this service's {noun}s; GET /v1/{noun}s lists them"
        raise InvalidRequest([FieldProblem("model", message, [row.id for row in rows])])
    return found


def use_of(field: str, image: StoredImage) -> InputUse:
    """Describe an input image that is used as it is, for the receipt."""
    return InputUse(
        field=field,
        width=image.width,
        height=image.height,
        color_profile=image.color_profile,
        mask_source=image.mask_source,
    )
