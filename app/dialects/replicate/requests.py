"""Translates predictions of Replicate's clients into our requests. Queues and answers nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from app.dialects.native_fields import read_fields
from app.dialects.replicate.models import find_version
from app.dialects.replicate.schema import ModelPredictionRequest, PredictionRequest
from app.parsing.requests import Reading
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import FieldProblem, InvalidRequest, NotFound
from contracts.requests.schema import JobRequest, WebhookEvent

#: Names that models on Replicate have for our fields.
_ALIASES = {
    "num_outputs": "num_images",
    "mask": "mask_image",
    "prompt_strength": "strength",
    "guidance": "guidance_scale",
}
_ENDS = (WebhookEvent.COMPLETED, WebhookEvent.FAILED, WebhookEvent.CANCELLED)
_EVENTS = {"start": (WebhookEvent.STARTED,), "output": _ENDS, "completed": _ENDS}
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
_CANCEL_AFTER = re.compile(r"([0-9]{1,6})(s|m|h|)", re.ASCII)


@dataclass(frozen=True)
class Translation:
    """Our request for the same images.

    Attributes:
        sent: our fields -> the paths by which they were sent, where those differ from `input.FIELD`.
    """

    reading: Reading[JobRequest]
    sent: Mapping[str, str]

    def name_of(self, field: str) -> str:
        """The path by which the client sent one of our fields."""
        return self.sent.get(field) or (field if field == "body" else f"input.{field}")


def model_of(body: PredictionRequest, catalogue: Catalogue) -> ModelSpec:
    """The model whose version a prediction names; raises InvalidRequest if no model has it."""
    try:
        return find_version(body.version, catalogue)
    except NotFound as error:
        message = f"{error}; GET /replicate/v1/models lists the versions"
        raise InvalidRequest([FieldProblem("version", message)]) from None


def translate(
    body: ModelPredictionRequest, model: ModelSpec, base: str, cancel_after: str | None = None
) -> Translation:
    """Translate a prediction of a model.

    Args:
        base: of the service's URLs, by which inputs name files and outputs.
        cancel_after: the header of that name.

    Raises:
        InvalidRequest: about what only this API has; the rest is in the reading.
    """
    fields = {name: value for name, value in body.input.items() if value is not None}
    sent = {"webhook.url": "webhook", "deadline_seconds": "Cancel-After", "model": "model"}
    outside = [name for name in ("model", "webhook", "task") if name in fields]
    problems = [FieldProblem(f"input.{name}", "is not a field of an input; remove it") for name in outside]
    for theirs, ours in _ALIASES.items():
        if theirs in fields:
            value = fields.pop(theirs)
            if fields.get(ours, value) != value:
                message = f"contradicts {ours}, got {value!r:.40} and {fields[ours]!r:.40}; send one of them"
                problems.append(FieldProblem(f"input.{theirs}", message))
            fields[ours], sent[ours] = value, f"input.{theirs}"
    if fields.get("output_format") == "jpg":
        fields["output_format"] = "jpeg"
    if fields.pop("disable_safety_checker", True) is not True:
        message = "must be true, since images are not checked here; remove it"
        problems.append(FieldProblem("input.disable_safety_checker", message, [True]))
    fields |= _webhook_of(body, problems) | _deadline_of(cancel_after, fields, problems)
    if "deadline_seconds" in body.input:
        del sent["deadline_seconds"]
    if problems:
        raise InvalidRequest(problems)
    if body.webhook is None:
        sent["webhook.url"] = "webhook_completed"
    return Translation(read_fields(_with_references({**fields, "model": model.id}, base)), sent)


def _webhook_of(body: ModelPredictionRequest, problems: list[FieldProblem]) -> dict[str, Any]:
    url = body.webhook or body.webhook_completed
    if body.webhook_events_filter is not None and body.webhook is None:
        problems.append(
            FieldProblem("webhook_events_filter", "needs webhook, the address to post to; send it too")
        )
    if body.webhook is not None and body.webhook_completed is not None:
        problems.append(FieldProblem("webhook_completed", "is given beside webhook; send one of them"))
    if url is None:
        return {}
    wanted: Iterable[str] = body.webhook_events_filter or _EVENTS
    if body.webhook is None:
        wanted = ("completed",)
    events = dict.fromkeys(event.value for name in wanted for event in _EVENTS[name])
    return {"webhook": {"url": url, "events": list(events)}}


def _deadline_of(
    cancel_after: str | None, fields: Mapping[str, Any], problems: list[FieldProblem]
) -> dict[str, Any]:
    if cancel_after is None:
        return {}
    match = _CANCEL_AFTER.fullmatch(cancel_after.strip())
    if match is None:
        problems.append(FieldProblem("Cancel-After", f"must be like 90s, 5m or 1h, got {cancel_after[:40]!r}"))
        return {}
    if "deadline_seconds" in fields:
        problems.append(FieldProblem("Cancel-After", "is given beside input.deadline_seconds; send one of them"))
    return {"deadline_seconds": int(match[1]) * _UNITS[match[2]]}


def _with_references(fields: dict[str, Any], base: str) -> dict[str, Any]:
    """The fields with our own names in place of URLs of this service's files and outputs."""
    for name in ("image", "mask_image"):
        if name in fields:
            fields[name] = _reference(fields[name], base)
    if isinstance(references := fields.get("references"), list):
        fields["references"] = [_reference(reference, base) for reference in references]
    if isinstance(controls := fields.get("controls"), list):
        fields["controls"] = [
            {**control, "image": _reference(control["image"], base)}
            if isinstance(control, dict) and "image" in control
            else control
            for control in controls
        ]
    return fields


def _reference(value: object, base: str) -> object:
    if not isinstance(value, str) or not value.startswith(f"{base}/"):
        return value
    path = value.removeprefix(base).partition("?")[0]
    if match := re.fullmatch(r"/replicate/v1/files/([0-9a-f]{64})", path):
        return f"upload:{match[1]}"
    if match := re.fullmatch(r"/v1/jobs/([0-9a-f]{1,64})/images/([0-9]{1,3})", path):
        return f"job:{match[1]}/{match[2]}"
    return value
