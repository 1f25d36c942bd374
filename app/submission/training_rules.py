"""What several fields of a training, the catalogue and the owner's adapters allow together. Stores nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from app.submission.checks import RequestChecks
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import FieldProblem, InvalidRequest
from contracts.prompts.trigger_words import words_in
from contracts.requests.checks.validation import check
from contracts.requests.schema import Txt2ImgRequest
from contracts.requests.training.buckets import bucket
from contracts.requests.training.request import (
    KIND_FIELDS,
    MAX_IMAGES,
    MAX_SNAPSHOTS,
    TRAINABLE_FAMILIES,
    TrainingRequest,
)
from contracts.requests.training.settings import Kind
from contracts.requests.training.trainable import default_resolution, kinds_of, unused_fields
from contracts.uploads.adapters import CONTROLNETS, INVERSIONS, LORAS, UploadKind

#: What a training of each kind registers.
_REGISTERED: dict[Kind, UploadKind[Any]] = {
    "lora": LORAS,
    "textual_inversion": INVERSIONS,
    "controlnet": CONTROLNETS,
}


class TrainingRules:
    """Rules for several fields together, for the catalogue and for the owner's adapters."""

    def __init__(self, checks: RequestChecks, catalogue: Catalogue, first_step: int = 0) -> None:
        """`first_step`: steps that are done before it begins."""
        self._checks, self._catalogue, self._first_step = checks, catalogue, first_step

    def check(self, request: TrainingRequest) -> None:
        """Raises InvalidRequest with all that is wrong."""
        problems = [
            *_problems_of(request, self._snapshots(request)),
            *_kind_problems(request),
            *self._name_problems(request),
        ]
        guard = self._checks.services.prompt_guard
        if guard is not None:
            problems += guard.text_problems(texts_of(request))
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
        known = [model.id for model in self._catalogue.models if request.kind in kinds_of(model)]
        id = request.model or self._catalogue.default_model
        if id in known:
            return self._catalogue.model(id)
        is_here = any(model.id == id for model in self._catalogue.models)
        reason = "cannot be trained on" if is_here else "is not a model of this service"
        families, noun = ", ".join(TRAINABLE_FAMILIES[request.kind]), _REGISTERED[request.kind].noun
        message = (
            f"{id!r:.80} {reason}; a {noun} is trained on models that make images from prompts, "
            f"of these families, from weights that are not quantized: {families}"
        )
        raise InvalidRequest([FieldProblem("model", message, known)])

    def _name_problems(self, request: TrainingRequest) -> list[FieldProblem]:
        kind = _REGISTERED[request.kind]
        rows = self._checks.services.adapters.find_all(kind, self._checks.principal.owner)
        taken = {row.id for row in (*rows, *getattr(self._catalogue, kind.table))}
        names = [request.name, *(f"{request.name}-step{step}" for step in self._snapshots(request))]
        found = [name for name in names if name in taken]
        if not found:
            return []
        message = f"there is a {kind.noun} {found[0]!r} already; choose another name, or delete it first"
        return [FieldProblem("name", message)]

    def _snapshots(self, request: TrainingRequest) -> Sequence[int]:
        """The steps after which one is taken, without the last step."""
        every = request.snapshot_every_steps or request.steps
        return range(every * (self._first_step // every + 1), request.steps, every)

    def _model_problems(self, request: TrainingRequest, model: ModelSpec) -> list[FieldProblem]:
        problems, unused = [], unused_fields(request.kind, model)
        if request.snr_gamma is not None and "snr_gamma" in unused:
            message = "does not apply to this model, which predicts a flow; leave it out"
            problems.append(FieldProblem("snr_gamma", message))
        if request.train_text_encoder and "train_text_encoder" in unused and request.kind == "lora":
            message = "is not possible for this model: LoRAs cannot change its text encoder; leave it out"
            problems.append(FieldProblem("train_text_encoder", message))
        try:
            check(image_request(request, model), self._catalogue)
        except InvalidRequest as error:
            problems += [_as_resolution(problem) for problem in error.problems]
        return problems


def _problems_of(request: TrainingRequest, snapshots: Sequence[int]) -> Iterator[FieldProblem]:
    """What is wrong with fields together, whatever the model.

    Args:
        snapshots: the steps after which one is taken.
    """
    most, count = MAX_IMAGES[request.kind], len(request.images)
    if not count:
        yield FieldProblem("images", f"a training needs 1 to {most} images: name them, or send a zip file")
    if count > most:
        message = f"may be at most {most} for a {_REGISTERED[request.kind].noun}, got {count}"
        yield FieldProblem("images", message, f"1–{most} images")
    yield from _control_problems(request)
    lacking = [index for index, example in enumerate(request.images) if example.caption is None]
    if lacking and request.instance_prompt is None:
        message = "has no caption; give it one, or give an instance_prompt for all images"
        yield FieldProblem(f"images.{lacking[0]}", message)
    if request.class_images is not None and request.class_prompt is None:
        yield FieldProblem("class_prompt", "is needed with class_images: it says what they show")
    if request.warmup_steps >= request.steps:
        message = f"must be less than steps ({request.steps}), got {request.warmup_steps}"
        yield FieldProblem("warmup_steps", message)
    if len(snapshots) > MAX_SNAPSHOTS:
        least = -(-request.steps // MAX_SNAPSHOTS)
        message = f"would make {len(snapshots)} snapshots; at most {MAX_SNAPSHOTS} are allowed"
        yield FieldProblem("snapshot_every_steps", message, f"at least {least}")


def _control_problems(request: TrainingRequest) -> Iterator[FieldProblem]:
    """Of images, the first that lacks its control image, or that has one for nothing."""
    is_needed = request.kind == "controlnet"
    wrong = (
        index
        for index, example in enumerate(request.images)
        if (example.conditioning_image is not None) != is_needed
    )
    index = next(wrong, None)
    if index is None:
        return
    if is_needed:
        message = (
            "needs a control image, since a ControlNet learns from pairs: give conditioning_image, in a zip file "
            "NAME.control.png beside NAME.png, or conditioning_image in metadata.jsonl"
        )
        yield FieldProblem(f"images.{index}", message)
    else:
        message = "applies to kind controlnet only (ControlNets); leave it out"
        yield FieldProblem(f"images.{index}.conditioning_image", message)


def _kind_problems(request: TrainingRequest) -> Iterator[FieldProblem]:
    """What means nothing for this kind, and captions that would teach a word nothing."""
    for kind, fields in KIND_FIELDS.items():
        for field in sorted(fields & request.model_fields_set) if kind != request.kind else ():
            if getattr(request, field) is not None:
                noun = _REGISTERED[kind].noun
                yield FieldProblem(field, f"applies to kind {kind} only ({noun}s); leave it out")
    if request.kind != "textual_inversion":
        return
    for field, text in texts_of(request):
        if field not in ("class_prompt", "initial_text") and not words_in(text, [request.name]):
            message = f"must contain the word {request.name!r}, which stands for what is trained"
            yield FieldProblem(field, message)


def resolution_of(request: TrainingRequest, model: ModelSpec) -> int:
    """Side of the square with whose pixels images are read: the request's, or the model's own."""
    return request.resolution or default_resolution(model)


def image_request(request: TrainingRequest, model: ModelSpec) -> Txt2ImgRequest:
    """The request of an image of the class, or of a sample."""
    resolution = resolution_of(request, model)
    width, height = bucket(1, 1, resolution)
    prompt = request.class_prompt or next((text for _, text in texts_of(request)), "an image")
    return Txt2ImgRequest(prompt=prompt, model=model.id, width=width, height=height, seed=request.seed or 0)


def _as_resolution(problem: FieldProblem) -> FieldProblem:
    """A problem of the images that are made meanwhile, in terms of the training."""
    field = "resolution" if problem.field in ("width", "height") else "class_prompt"
    return FieldProblem(field, f"of the images that it makes, {problem.field} {problem.message}", problem.allowed)


def texts_of(request: TrainingRequest) -> list[tuple[str, str]]:
    """All texts that the model is given, with the paths of their fields."""
    names = ("instance_prompt", "class_prompt", "initial_text")
    texts: list[tuple[str, str | None]] = [(name, getattr(request, name)) for name in names]
    texts += [(f"sample_prompts.{index}", text) for index, text in enumerate(request.sample_prompts)]
    texts += [(f"images.{index}.caption", example.caption) for index, example in enumerate(request.images)]
    return [(field, text) for field, text in texts if text is not None]
