"""Our own fields inside the request of another API, read as strictly as in a request of ours. Knows no dialect."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.parsing.requests import Reading, read
from contracts.catalogue.families import Task
from contracts.errors import FieldProblem, InvalidRequest
from contracts.requests.schema import REQUESTS, JobRequest

#: Fields that may be many megabytes: they are not copied to be read again.
_IMAGES = ("image", "mask_image")
#: What is wrong with `check_step` in the request of another API.
NO_IMAGE = "makes no image, and this call answers with one; send it to POST /v1/txt2img or another task"
#: Placeholder of such an image until the rest is read.
_GIVEN = "given"


def task_of(fields: Mapping[str, Any]) -> Task:
    """The task that these fields ask for, by the images among them."""
    if fields.get("references"):
        return Task.EDIT
    if "controls" in fields:
        return Task.CONTROLNET
    if "mask_image" in fields:
        return Task.INPAINT
    return Task.IMG2IMG if "image" in fields else Task.TXT2IMG


def read_fields(fields: Mapping[str, Any]) -> Reading[JobRequest]:
    """Read fields that were parsed from JSON as the request of the task that they ask for.

    Raises:
        InvalidRequest: as `read` says; or it asks for no image, which other APIs must answer with.
    """
    if fields.get("check_step") is not None:
        raise InvalidRequest([FieldProblem("check_step", NO_IMAGE)])
    given = {name: value for name in _IMAGES if isinstance(value := fields.get(name), str) and value}
    present = {name: value for name, value in fields.items() if value is not None}
    raw = json.dumps({**present, **dict.fromkeys(given, _GIVEN)}).encode()
    reading: Reading[JobRequest] = read(REQUESTS[task_of(present)], raw)
    return replace(reading, requests=tuple(request.model_copy(update=given) for request in reading.requests))
