"""Rebuilds the request of an earlier job, with the client's changes. Submits nothing."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

from PIL import Image
from pydantic_core import from_json

from app.inputs.codec.stored_form import STORED_FORMATS, upright_size
from app.parsing.json_bodies import check_json, invalid_json
from app.parsing.requests import read
from app.submission.checks import Draft, JobDraft
from app.submission.plain.tasks import PLAIN_TASKS
from contracts.catalogue.families import Task
from contracts.errors import Conflict, FieldProblem, InvalidRequest, NotFound
from contracts.jobs.record_reader import UnreadableJob
from contracts.jobs.records import JobRecord
from contracts.requests import rebuilding
from contracts.requests.any_parameters import AnyParameters
from contracts.requests.images.stored_image import StoredImage
from contracts.requests.parameters import JobParameters
from contracts.requests.schema import REQUESTS
from contracts.requests.task_parameters import JobTask
from contracts.storage import Storage


def rerun_draft(record: JobRecord, raw: bytes, storage: Storage) -> Draft:
    """Make a draft with a job's parameters. A field of the body replaces the job's own; null resets it.

    The seed is set explicitly, so the job runs alone and gives the same images. The deadline is not taken over.

    Raises:
        UnreadableBody: the body is not JSON.
        Conflict: the job's record cannot be read.
        InvalidRequest: the body is not a JSON object, the request is invalid, or an image has expired.
    """
    if isinstance(record, UnreadableJob):
        raise Conflict(f"job {record.id} cannot be run again: its record cannot be read; send the request itself")
    if record.parameters.task == JobTask.TRAINING:
        raise Conflict(
            f"job {record.id} is a training; POST /v1/trainings continues it with resume_from, or repeats it "
            "with the same seed"
        )
    if isinstance(record.parameters, JobParameters) and record.parameters.check_step is not None:
        raise Conflict(f"job {record.id} only checked one step and made no image; send its request again")
    changes = _read_object(raw)
    fields = {**_fields_of(record), **changes}
    fields = {name: value for name, value in fields.items() if value is not None}
    text = json.dumps(fields).encode()
    profiles = {use.field: use.color_profile for use in record.parameters.input_images}
    stored_images = {
        path: replace(measure(storage, path, key), color_profile=profiles.get(path))
        for path, key in images_of(record.parameters).items()
        if path.partition(".")[0] not in changes
    }
    plain = PLAIN_TASKS.get(record.parameters.task)
    if plain is not None:
        return plain.draft(read(plain.request, text), stored_images)
    return JobDraft(read(REQUESTS[Task(record.parameters.task)], text), stored_images)


def _read_object(raw: bytes) -> dict[str, Any]:
    check_json(raw)
    try:
        changes = from_json(raw, allow_inf_nan=False) if raw.strip() else {}
    except ValueError as error:
        raise invalid_json(str(error)) from None
    if not isinstance(changes, dict):
        raise InvalidRequest([FieldProblem("body", "must be a JSON object")])
    return changes


def _fields_of(record: JobRecord) -> dict[str, Any]:
    """The job's request with every field set, and placeholders for images."""
    return request_fields(record.parameters) | {
        "response_format": record.response_format,
        "priority": record.priority.value,
        "metadata": record.metadata,
    }


def request_fields(parameters: AnyParameters) -> dict[str, Any]:
    """The fields of the request that has these parameters, with placeholders for images; none about delivery."""
    if isinstance(parameters, JobParameters):
        return rebuilding.request_fields(parameters)
    fields = parameters.model_dump(mode="json", exclude_none=True)
    fields |= dict.fromkeys(images_of(parameters), rebuilding.STORED)
    known = PLAIN_TASKS[parameters.task].request.model_fields
    return {name: value for name, value in fields.items() if name in known}


def images_of(parameters: AnyParameters) -> dict[str, str]:
    """Return the storage keys of a job's images by their paths in a request."""
    if isinstance(parameters, JobParameters):
        return rebuilding.images_of(parameters)
    return {name: getattr(parameters, name) for name in PLAIN_TASKS[parameters.task].image_fields}


def measure(storage: Storage, path: str, key: str) -> StoredImage:
    """Find the size of an image of an earlier job; raises InvalidRequest, naming the path, if it is gone."""
    try:
        with Image.open(io.BytesIO(storage.read(key)), formats=STORED_FORMATS) as image:
            return StoredImage(key, *upright_size(image))
    except NotFound:
        message = "the image of the first job has expired; send it again"
        raise InvalidRequest([FieldProblem(path, message)]) from None
