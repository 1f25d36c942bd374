"""Reads the stored records of jobs, whichever release wrote them.

Unknown fields are ignored, missing ones get defaults, and an optional one that cannot be read counts as missing. A
job that still cannot be read, because it lacks its state or parameters that this release understands, is an
`UnreadableJob`: one job that fails, and never an error of a call that also reads others. Knows no Redis.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from contracts.catalogue.families import Mode, Task
from contracts.jobs.failures import FailureCode
from contracts.jobs.records import JSON_FIELDS, RECORD_VERSION, JobError, JobRecord, JobState
from contracts.requests.parameters import JobParameters
from contracts.requests.schema import Priority

_log = logging.getLogger(__name__)

#: Without these, a record cannot be read.
_ESSENTIAL = frozenset({"state", "parameters"})
_DEFAULTS: Mapping[str, Any] = {"id": "", "owner": "", "priority": Priority.NORMAL, "created_at": 0.0}


class UnreadableJob(JobRecord):
    """The record of a job that this release cannot read: its parameters are placeholders, and cannot be run."""


def read_record(fields: Mapping[str, str]) -> JobRecord:
    """Read a record from its Redis hash (decoded strings); never raises."""
    values = {**_DEFAULTS, **_decode(fields)}
    problem = _version_problem(fields)
    while problem is None:
        try:
            return JobRecord.model_validate(values)
        except ValidationError as error:
            wrong = {str(item["loc"][0]): item for item in error.errors(include_url=False, include_input=False)}
        essential = sorted(_ESSENTIAL & wrong.keys())
        if essential:
            item = wrong[essential[0]]
            field, *path = item["loc"]
            path = path[1:] if field == "parameters" else path  # the first is pydantic's name of their kind
            problem = f"{'.'.join(map(str, (field, *path)))}: {item['msg']}"
        _drop(values, wrong.keys() - _ESSENTIAL)
    return _unreadable(values, fields, problem)


def _decode(fields: Mapping[str, str]) -> dict[str, Any]:
    """The fields that records have, JSON decoded; what is not JSON is left as text, which is refused later."""
    values: dict[str, Any] = {name: fields[name] for name in JobRecord.model_fields if fields.get(name)}
    for name in JSON_FIELDS & values.keys():
        try:
            values[name] = json.loads(values[name])
        except ValueError:
            continue
    receipt = values.get("receipt")
    if isinstance(receipt, dict) and "parameters" in values:
        receipt.setdefault("parameters", values["parameters"])
    return values


def _version_problem(fields: Mapping[str, str]) -> str | None:
    version = fields.get("version", "0")
    if version.isdecimal() and int(version) <= RECORD_VERSION:
        return None
    return f"it has version {version[:20]!r}, and this release reads versions up to {RECORD_VERSION}"


def _drop(values: dict[str, Any], names: set[str]) -> None:
    for name in names:
        _log.warning("job %s: its field %s cannot be read and is left out", values.get("id"), name)
        if name in _DEFAULTS:
            values[name] = _DEFAULTS[name]
        else:
            values.pop(name, None)


def _unreadable(values: dict[str, Any], fields: Mapping[str, str], problem: str) -> UnreadableJob:
    """The record with what can be read of it, and placeholders for the rest."""
    values["parameters"] = _placeholder(fields)
    values.pop("receipt", None)
    if fields.get("state") not in set(JobState):
        values["state"] = JobState.FAILED
    if values["state"] != JobState.COMPLETED and values["state"] != JobState.CANCELLED:
        message = f"the job's record cannot be read by this release; send the request again ({problem})"
        values.setdefault("error", JobError.of(FailureCode.UNREADABLE, message))
    while True:
        try:
            return UnreadableJob.model_validate(values)
        except ValidationError as error:
            _drop(values, {str(item["loc"][0]) for item in error.errors(include_url=False, include_input=False)})


def _placeholder(fields: Mapping[str, str]) -> JobParameters:
    task = fields.get("task", "")
    return JobParameters.model_construct(
        task=Task(task) if task in set(Task) else Task.TXT2IMG,
        mode=Mode.TXT2IMG,
        model=fields.get("model", ""),
        prompt="",
        width=0,
        height=0,
        num_inference_steps=0,
        seed=0,
        scheduler="",
    )
