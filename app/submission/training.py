"""The checks of a request that trains something. Queues and stores nothing."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from app.inputs.image import GivenImage
from app.inputs.training_archive import TrainingArchive
from app.limits.admission import Admission
from app.parsing.json_bodies import check_json
from app.parsing.requests import Reading, read, read_checked
from app.services import Services
from app.settings import ApiSettings
from app.submission.checks import Delivery, RequestChecks
from app.submission.resuming import Resumption
from app.submission.training_rules import TrainingRules, image_request, resolution_of, texts_of
from contracts import logs
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import FieldProblem, ImageTooLarge, InvalidRequest, NotAnImage
from contracts.requests.defaults import resolve
from contracts.requests.parameters import JobParameters
from contracts.requests.training.parameters import ResumedTraining, TrainingImage, TrainingParameters
from contracts.requests.training.request import (
    MAX_CLASS_IMAGES,
    MAX_IMAGES,
    TrainingRequest,
)
from contracts.requests.training.settings import TrainingSettings
from contracts.requests.training.trainable import LEARNING_RATES

#: Largest seed that is drawn: those of class images follow it.
_MAX_DRAWN_SEED = 2**32 - 1 - MAX_CLASS_IMAGES
_CLASS_IMAGES = 50
#: Placeholder in the request for an image of the zip file.
_IN_FILE = "in the file"


@dataclass(frozen=True)
class CheckedTraining:
    """A request for a training that passed every check."""

    model: ModelSpec
    parameters: TrainingParameters
    delivery: Delivery
    counts: None = None

    def require_worker(self, admission: Admission) -> None:
        """As `Checked`."""
        admission.require_trainer(self.model, self.parameters)


@dataclass(frozen=True)
class TrainingDraft:
    """A request for a training as it was read.

    Attributes:
        images: of the zip file, by field path.
        names: `images.N`, or the field path of a control image -> name in the zip file, for errors.
    """

    reading: Reading[TrainingRequest]
    images: Mapping[str, GivenImage]
    names: Mapping[str, str]
    resumed: ResumedTraining | None = None

    @classmethod
    def of(cls, raw: bytes, archive: Path | None, services: Services, owner: str) -> TrainingDraft:
        """Read a request, and the zip file beside it if there is one; complete one that resumes a training.

        Raises:
            UnreadableBody, InvalidRequest: as `read`; or the zip file is refused; or as `Resumption.of`.
            Unavailable: as `Resumption.of`.
        """
        if archive is None:
            reading = read(TrainingRequest, raw)
            if reading.problems or reading.requests[0].resume_from is None:
                return cls(reading, {}, {})
            found = Resumption.of(reading.require(), services.queue, services.storage, owner)
            return cls(found.reading, found.images, {}, found.resumed)
        return cls._with_archive(raw, archive, services.settings)

    @classmethod
    def _with_archive(cls, raw: bytes, archive: Path, settings: ApiSettings) -> TrainingDraft:
        images: dict[str, GivenImage] = {}
        names: dict[str, str] = {}
        examples: list[dict[str, str]] = []
        limits = (max(MAX_IMAGES.values()), settings.max_image_bytes, settings.max_training_bytes)
        with TrainingArchive(archive, *limits) as file:
            for index, image in enumerate(file.images):
                example, path = {"image": _IN_FILE}, f"images.{index}"
                images[f"{path}.image"] = image.read()
                names[path] = image.name
                if image.caption is not None:
                    example["caption"] = image.caption
                if image.control is not None:
                    example["conditioning_image"] = _IN_FILE
                    images[f"{path}.conditioning_image"] = image.control.read()
                    names[f"{path}.conditioning_image"] = image.control.name
                examples.append(example)
        return cls(read_checked(TrainingRequest, _with_images(raw, examples)), images, names)

    def check(self, checks: RequestChecks) -> CheckedTraining:
        """As in `Draft`."""
        catalogue = checks.services.catalogue
        rules = TrainingRules(checks, catalogue, 0 if self.resumed is None else self.resumed.step)
        for request in self.reading.requests:
            logs.hide(*(text for _, text in texts_of(request)))
        with _named(self.names):
            delivery = checks.check_delivery(self.reading, self.images, rules.check)
            request = self.reading.require()
            _check_pairs(request, delivery)
        model = rules.model_of(request)
        parameters = _parameters(request, model, delivery).model_copy(update={"resumed": self.resumed})
        return CheckedTraining(model, parameters, delivery)


def _parameters(request: TrainingRequest, model: ModelSpec, delivery: Delivery) -> TrainingParameters:
    seed = secrets.randbelow(_MAX_DRAWN_SEED + 1) if request.seed is None else request.seed
    sample: JobParameters = resolve(image_request(request, model), model, {})
    has_class = request.class_prompt is not None
    return TrainingParameters(
        task=request.task,
        model=model.id,
        name=request.name,
        settings=TrainingSettings(
            **{name: getattr(request, name) for name in TrainingSettings.model_fields if hasattr(request, name)}
            | {
                "vectors": request.vectors or (1 if request.kind == "textual_inversion" else None),
                "learning_rate": request.learning_rate or LEARNING_RATES[request.kind],
                "alpha": request.alpha or float(request.rank),
                "resolution": resolution_of(request, model),
                "seed": seed,
            }
        ),
        images=tuple(
            TrainingImage(
                image=delivery.images[f"images.{index}.image"].stored.key,
                conditioning_image=(
                    None
                    if example.conditioning_image is None
                    else delivery.images[f"images.{index}.conditioning_image"].stored.key
                ),
                caption=example.caption or request.instance_prompt or "",
            )
            for index, example in enumerate(request.images)
        ),
        class_prompt=request.class_prompt,
        class_images=(request.class_images or _CLASS_IMAGES) if has_class else 0,
        sample_prompts=request.sample_prompts,
        snapshot_every_steps=request.snapshot_every_steps or request.steps,
        checkpoint_every_steps=request.checkpoint_every_steps,
        sample=sample.model_copy(update={"seed": seed, "batchable": False}),
    )


def _check_pairs(request: TrainingRequest, delivery: Delivery) -> None:
    """Raise InvalidRequest where a control image has not the size of its image."""
    for index, example in enumerate(request.images):
        if example.conditioning_image is None:
            continue
        path = f"images.{index}.conditioning_image"
        image, control = delivery.images[f"images.{index}.image"].stored, delivery.images[path].stored
        sizes = [f"{one.width} × {one.height}" for one in (control, image)]
        if sizes[0] != sizes[1]:
            message = f"is {sizes[0]} pixels, and its image {sizes[1]}; a control image must have its image's size"
            raise InvalidRequest([FieldProblem(path, message, sizes[1])])


def _with_images(raw: bytes, examples: list[dict[str, str]]) -> bytes:
    """The request with the images of its zip file."""
    check_json(raw, TrainingRequest.model_fields)
    try:
        body: Any = from_json(raw, allow_inf_nan=False)
    except ValueError:
        return raw  # which reading it words
    if not isinstance(body, dict):
        return raw
    if body.get("images"):
        raise InvalidRequest([FieldProblem("images", "are in the zip file; leave the field out")])
    if body.get("resume_from"):
        message = "uses the images of the earlier training; send JSON alone, without a file"
        raise InvalidRequest([FieldProblem("resume_from", message)])
    return json.dumps({**body, "images": examples}).encode()


@contextmanager
def _named(names: Mapping[str, str]) -> Iterator[None]:
    """Say of what is wrong with an image of a zip file which one it is."""
    try:
        yield
    except InvalidRequest as error:
        if not names:
            raise
        raise InvalidRequest([_in_file(problem, names) for problem in error.problems], error.count) from None
    except (ImageTooLarge, NotAnImage) as error:
        if not names:
            raise
        raise InvalidRequest([_in_file(error.problem, names)]) from None


def _in_file(problem: FieldProblem, names: Mapping[str, str]) -> FieldProblem:
    field = problem.field if problem.field in names else problem.field.rpartition(".")[0]
    if field not in names:
        return problem
    noun = "control image" if field.endswith(".conditioning_image") else "image"
    return FieldProblem("file", f"the {noun} {names[field]!r:.100}: {problem.message}", problem.allowed)
