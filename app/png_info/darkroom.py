"""Requests from receipts: those of this service's jobs, and those in its files. Stores nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from app.png_info.draft import Draft
from app.png_info.json_texts import read_object
from contracts.requests.parameters import JobParameters
from contracts.requests.rebuilding import images_of, request_fields

#: Returns what names an image with this SHA-256 in a caller's requests; None: it is not known, or no longer.
FindInput = Callable[[str], str | None]

#: An input image's SHA-256, in its storage key or as files name it.
_SHA256 = re.compile(r"(?:inputs/|sha256:)([0-9a-f]{64})(?:\.|$)", re.ASCII)
#: Of delivery, not of the image.
_DELIVERY = frozenset({"previews"})


def draft_of(parameters: JobParameters, n: int, find: FindInput) -> Draft:
    """The request for image `n` of a job.

    It is for all images of the job: an image that is made alone may differ in its last bits.
    """
    fields = {name: value for name, value in request_fields(parameters).items() if name not in _DELIVERY}
    images = {path: _name_of(key, find) for path, key in images_of(parameters).items()}
    return Draft("darkroom", parameters.task, fields, images=images, n=n)


def read_receipt(text: str | None, find: FindInput) -> Draft | None:
    """The request in the receipt that a file has; None where the text is none."""
    receipt = read_object(text)
    parameters = None if receipt is None else receipt.get("parameters")
    seed = None if receipt is None else receipt.get("seed")
    if not isinstance(parameters, dict) or not isinstance(seed, int) or isinstance(seed, bool):
        return None
    try:
        read = JobParameters.model_validate_json(to_json(_with_images(parameters)))
    except ValidationError:
        return None
    n = seed - read.seed
    return draft_of(read, n, find) if 0 <= n < read.num_images else None


def _with_images(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters with something in place of images that have no name in the file, and must have one."""
    filled = dict(parameters)
    for name, images in (("references", "image"), ("ip_adapters", "images")):
        if isinstance(filled.get(name), list):
            filled[name] = [_filled(row, images) for row in filled[name]]
    return filled


def _filled(row: Any, name: str) -> Any:
    if not isinstance(row, dict):
        return row
    value = row.get(name)
    if isinstance(value, list):
        return {**row, name: ["?" if image is None else image for image in value]}
    return {**row, name: "?" if value is None else value}


def _name_of(key: str, find: FindInput) -> str | None:
    found = _SHA256.match(key)
    return None if found is None else find(found[1])
