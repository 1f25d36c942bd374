"""The checks of a request that trains a LoRA. Queues and stores nothing."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from app.inputs.reader import GivenImage
from app.inputs.training_archive import TrainingArchive
from app.limits.admission import Admission
from app.parsing.json_bodies import check_json
from app.parsing.requests import Reading, read
from app.settings import ApiSettings
from app.submission.checks import Delivery, RequestChecks
from contracts import logs
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Task
from contracts.catalogue.models import ModelSpec
from contracts.errors import FieldProblem, ImageTooLarge, InvalidRequest, NotAnImage
from contracts.requests.checks.validation import check
from contracts.requests.defaults import resolve
from contracts.requests.parameters import JobParameters
from contracts.requests.schema import Txt2ImgRequest
from contracts.requests.training.buckets import bucket
from contracts.requests.training.lora_settings import LoraSettings
from contracts.requests.training.parameters import TrainingImage, TrainingParameters
from contracts.requests.training.request import (
    MAX_CLASS_IMAGES,
    MAX_IMAGES,
    MAX_SNAPSHOTS,
    TRAINABLE_FAMILIES,
    TrainingRequest,
)
from contracts.uploads.adapters import LORAS

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
        names: the same fields -> names in the zip file, for errors.
    """

    reading: Reading[TrainingRequest]
    images: Mapping[str, GivenImage]
    names: Mapping[str, str]

    @classmethod
    def of(cls, raw: bytes, archive: Path | None, settings: ApiSettings) -> TrainingDraft:
        """Read a request, and the zip file beside it if there is one.

        Raises:
            UnreadableBody, InvalidRequest: as `read`; or the zip file is refused.
        """
        if archive is None:
            return cls(read(TrainingRequest, raw), {}, {})
        images: dict[str, GivenImage] = {}
        names: dict[str, str] = {}
        examples: list[dict[str, str]] = []
        with TrainingArchive(archive, MAX_IMAGES, settings.max_image_bytes, settings.max_training_bytes) as file:
            for index, image in enumerate(file.images):
                images[f"images.{index}.image"] = image.read()
                names[f"images.{index}"] = image.name
                examples.append(
                    {"image": _IN_FILE} | ({} if image.caption is None else {"caption": image.caption})
                )
        return cls(read(TrainingRequest, _with_images(raw, examples)), images, names)

    def check(self, checks: RequestChecks) -> CheckedTraining:
        """As in `Draft`."""
        catalogue = checks.services.catalogue
        rules = _Rules(checks, catalogue)
        for request in self.reading.requests:
            logs.hide(*(text for _, text in _texts_of(request)))
        with _named(self.names):
            delivery = checks.check_delivery(self.reading, self.images, rules.check)
        request = self.reading.require()
        model = rules.model_of(request)
        return CheckedTraining(model, _parameters(request, model, delivery), delivery)


class _Rules:
    """What several fields together, the catalogue and the owner's LoRAs allow."""

    def __init__(self, checks: RequestChecks, catalogue: Catalogue) -> None:
        self._checks, self._catalogue = checks, catalogue

    def check(self, request: TrainingRequest) -> None:
        """Raises InvalidRequest with all that is wrong."""
        problems = [*_problems_of(request), *self._name_problems(request)]
        guard = self._checks.services.prompt_guard
        if guard is not None:
            problems += guard.text_problems(_texts_of(request))
        try:
            model = self.model_of(request)
        except InvalidRequest as error:
            problems += error.problems
        else:
            problems += self._model_problems(request, model)
        if problems:
            raise InvalidRequest(problems)

    def model_of(self, request: TrainingRequest) -> ModelSpec:
        """The model to train on.

        Raises:
            InvalidRequest: the model is unknown, or cannot be trained on.
        """
        known = [
            model.id
            for model in self._catalogue.models
            if model.family in TRAINABLE_FAMILIES and Task.TXT2IMG in model.tasks
        ]
        id = request.model or self._catalogue.default_model
        if id in known:
            return self._catalogue.model(id)
        is_here = any(model.id == id for model in self._catalogue.models)
        reason = "cannot be trained on" if is_here else "is not a model of this service"
        families = ", ".join(TRAINABLE_FAMILIES)
        message = f"{id!r:.80} {reason}; models that make images from prompts of these families can: {families}"
        raise InvalidRequest([FieldProblem("model", message, known)])

    def _name_problems(self, request: TrainingRequest) -> list[FieldProblem]:
        rows = self._checks.services.adapters.find_all(LORAS, self._checks.principal.owner)
        taken = {row.id for row in (*rows, *self._catalogue.loras)}
        names = [request.name, *(f"{request.name}-step{step}" for step in _snapshots(request))]
        found = [name for name in names if name in taken]
        if not found:
            return []
        message = f"there is a LoRA {found[0]!r} already; choose another name, or delete it first"
        return [FieldProblem("name", message)]

    def _model_problems(self, request: TrainingRequest, model: ModelSpec) -> list[FieldProblem]:
        problems = []
        if request.snr_gamma is not None and model.family_spec.kind == "flow":
            message = "has no meaning for this model, which predicts a flow; leave it out"
            problems.append(FieldProblem("snr_gamma", message))
        try:
            check(_image_request(request, model), self._catalogue)
        except InvalidRequest as error:
            problems += [_as_resolution(problem) for problem in error.problems]
        return problems


def _problems_of(request: TrainingRequest) -> Iterator[FieldProblem]:
    """What is wrong with fields together, whatever the model."""
    if not request.images:
        yield FieldProblem("images", f"a training needs 1 to {MAX_IMAGES} images: name them, or send a zip file")
    lacking = [index for index, example in enumerate(request.images) if example.caption is None]
    if lacking and request.instance_prompt is None:
        message = f"image {lacking[0]} has no caption; give it one, or give an instance_prompt for all images"
        yield FieldProblem(f"images.{lacking[0]}.caption", message)
    if request.class_images is not None and request.class_prompt is None:
        yield FieldProblem("class_prompt", "is needed with class_images: it says what they show")
    if request.warmup_steps >= request.steps:
        yield FieldProblem("warmup_steps", f"must be less than steps, which is {request.steps}")
    if len(_snapshots(request)) > MAX_SNAPSHOTS:
        least = -(-request.steps // MAX_SNAPSHOTS)
        message = f"would make {len(_snapshots(request))} snapshots, and {MAX_SNAPSHOTS} are allowed"
        yield FieldProblem("snapshot_every_steps", message, f"at least {least}")


def _snapshots(request: TrainingRequest) -> range:
    """The steps after which one is taken, without the last step."""
    every = request.snapshot_every_steps or request.steps
    return range(every, request.steps, every)


def _resolution_of(request: TrainingRequest, model: ModelSpec) -> int:
    sides = [side for name in ("width", "height") if isinstance(side := model.default(name), int)]
    return request.resolution or min(sides)


def _image_request(request: TrainingRequest, model: ModelSpec) -> Txt2ImgRequest:
    """The request of an image of the class, or of a sample."""
    resolution = _resolution_of(request, model)
    width, height = bucket(1, 1, resolution)
    prompt = request.class_prompt or next((text for _, text in _texts_of(request)), "an image")
    return Txt2ImgRequest(prompt=prompt, model=model.id, width=width, height=height, seed=request.seed or 0)


def _as_resolution(problem: FieldProblem) -> FieldProblem:
    """A problem of the images that are made meanwhile, in terms of the training."""
    field = "resolution" if problem.field in ("width", "height") else "class_prompt"
    return FieldProblem(field, f"of the images that it makes, {problem.field} {problem.message}", problem.allowed)


def _parameters(request: TrainingRequest, model: ModelSpec, delivery: Delivery) -> TrainingParameters:
    seed = secrets.randbelow(_MAX_DRAWN_SEED + 1) if request.seed is None else request.seed
    sample: JobParameters = resolve(_image_request(request, model), model, {})
    has_class = request.class_prompt is not None
    return TrainingParameters(
        task=request.task,
        model=model.id,
        name=request.name,
        settings=LoraSettings(
            **{name: getattr(request, name) for name in LoraSettings.model_fields if hasattr(request, name)}
            | {
                "alpha": request.alpha or float(request.rank),
                "resolution": _resolution_of(request, model),
                "seed": seed,
            }
        ),
        images=tuple(
            TrainingImage(
                image=delivery.images[f"images.{index}.image"].stored.key,
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


def _texts_of(request: TrainingRequest) -> list[tuple[str, str]]:
    """All texts that the model is given, with the paths of their fields."""
    texts = [("instance_prompt", request.instance_prompt), ("class_prompt", request.class_prompt)]
    texts += [(f"sample_prompts.{index}", text) for index, text in enumerate(request.sample_prompts)]
    texts += [(f"images.{index}.caption", example.caption) for index, example in enumerate(request.images)]
    return [(field, text) for field, text in texts if text is not None]


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
    field, _, _ = problem.field.rpartition(".")
    if field not in names:
        return problem
    return FieldProblem("file", f"the image {names[field]!r:.100}: {problem.message}", problem.allowed)
