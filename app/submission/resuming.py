"""Makes the request of a training that continues an earlier one: the earlier one's, with what may differ.

Submits nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.parsing.requests import Reading, read_checked
from app.submission.rerun import measure
from contracts.errors import FieldProblem, Gone, InvalidRequest, NotFound
from contracts.jobs.records import JobRecord
from contracts.queue.client import JobQueue
from contracts.requests import rebuilding
from contracts.requests.images.stored_image import StoredImage
from contracts.requests.schema import DeliveryFields
from contracts.requests.training.parameters import ResumedTraining, TrainingParameters
from contracts.requests.training.request import KIND_FIELDS, TrainingRequest
from contracts.storage import Storage

_FIELD = "resume_from"
#: Fields that a training that continues another may set itself; all others are the earlier training's.
_OWN_FIELDS = frozenset(
    {_FIELD, "name", "steps", "sample_prompts", "snapshot_every_steps", "checkpoint_every_steps",
     *DeliveryFields.model_fields}
)  # fmt: skip


@dataclass(frozen=True)
class Resumption:
    """A request that continues an earlier training.

    Attributes:
        reading: of the whole request.
        images: those of the earlier training, by field path.
    """

    reading: Reading[TrainingRequest]
    images: Mapping[str, StoredImage]
    resumed: ResumedTraining

    @classmethod
    def of(cls, request: TrainingRequest, queue: JobQueue, storage: Storage, owner: str) -> Resumption:
        """Complete a request that names the training to continue.

        Raises:
            InvalidRequest: this owner has no such training, it has not ended or has no checkpoint, or
                the request contradicts it.
            Unavailable: Redis or the storage does not answer.
        """
        training, resumed = _find(request.resume_from or "", queue, storage, owner)
        images = {
            f"images.{index}.{name}": measure(storage, f"images.{index}.{name}", key)
            for index, one in enumerate(training.images)
            for name, key in (("image", one.image), ("conditioning_image", one.conditioning_image))
            if key is not None
        }
        before = _fields_of(training)
        own = request.model_dump(mode="json", include=set(_OWN_FIELDS & request.model_fields_set))
        text = json.dumps({**before, **own}).encode()
        reading: Reading[TrainingRequest] = read_checked(TrainingRequest, text)
        complete = reading.require()
        problems = [*_differences(request, complete), *_step_problems(complete, training, resumed)]
        if problems:
            raise InvalidRequest(problems)
        return cls(reading, images, resumed)


def _find(id: str, queue: JobQueue, storage: Storage, owner: str) -> tuple[TrainingParameters, ResumedTraining]:
    """The training with this id, and its checkpoint."""
    record = _record_of(id, queue, owner)
    if record is None or not isinstance(record.parameters, TrainingParameters):
        raise _refused(f"you have no training {id!r:.80}; it may have expired or been deleted")
    if not record.state.is_final:
        raise _refused(f"training {id} is {record.state} and continues by itself; wait for it, or cancel it")
    checkpoint = record.checkpoint
    if checkpoint is None or not storage.exists(checkpoint.key):
        raise _refused(
            f"training {id} has no checkpoint, since it ended before its first one; send its request again"
        )
    return record.parameters, ResumedTraining(id=id, checkpoint=checkpoint.key, step=checkpoint.progress.step)


def _record_of(id: str, queue: JobQueue, owner: str) -> JobRecord | None:
    try:
        record = queue.fetch(id)
    except (NotFound, Gone):
        return None
    return record if record.owner == owner else None


def _fields_of(training: TrainingParameters) -> dict[str, Any]:
    """The request of a training, with placeholders for its images."""
    settings = training.settings
    fields = settings.model_dump(mode="json") | training.model_dump(
        mode="json", include={"model", "class_prompt", "sample_prompts", "checkpoint_every_steps"}
    )
    fields["class_images"] = training.class_images or None
    if training.snapshot_every_steps < settings.steps:
        fields["snapshot_every_steps"] = training.snapshot_every_steps
    fields["images"] = [
        {
            "image": rebuilding.STORED,
            "conditioning_image": None if one.conditioning_image is None else rebuilding.STORED,
            "caption": one.caption,
        }
        for one in training.images
    ]
    others = frozenset[str]().union(*(names for kind, names in KIND_FIELDS.items() if kind != settings.kind))
    known = TrainingRequest.model_fields.keys() - others
    return {name: value for name, value in fields.items() if name in known and value is not None}


def _differences(request: TrainingRequest, complete: TrainingRequest) -> Iterator[FieldProblem]:
    """Where a request contradicts the training that it continues."""
    id = request.resume_from
    for name in sorted(request.model_fields_set - _OWN_FIELDS):
        given, before = getattr(request, name), getattr(complete, name)
        if name in ("images", "instance_prompt"):
            yield FieldProblem(
                name, f"cannot be changed: the images and captions are those of training {id}; leave it out"
            )
        elif given is not None and given != before:
            said = "not set" if before is None else f"{before!r:.80}"
            yield FieldProblem(name, f"is {said} in training {id} and cannot be changed; leave it out", before)


def _step_problems(
    complete: TrainingRequest, training: TrainingParameters, resumed: ResumedTraining
) -> Iterator[FieldProblem]:
    settings = training.settings
    if settings.schedule != "constant" and complete.steps != settings.steps:
        message = (
            f"is {settings.steps} in training {resumed.id}: with the schedule {settings.schedule!r}, the learning "
            "rate of each step depends on it; only with a constant schedule can it be changed"
        )
        yield FieldProblem("steps", message, settings.steps)
    elif complete.steps <= resumed.step:
        message = f"must be more than the {resumed.step} that training {resumed.id} has completed"
        if settings.schedule != "constant":
            message = f"are all completed, so training {resumed.id} cannot be continued; start another one"
        yield FieldProblem("steps", message)


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest([FieldProblem(_FIELD, message)])
