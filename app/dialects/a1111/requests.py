"""Translates the web UI's requests into ours. Queues and answers nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from app.dialects.a1111.controlnet import A1111ControlNetUnit
from app.dialects.a1111.hires import hires_fields, hires_problems
from app.dialects.a1111.options import A1111Options, given_options, model_named, show_options
from app.dialects.a1111.preprocessors import NOTHING
from app.dialects.a1111.samplers import UnknownSampler, find_sampler, scheduler_for
from app.dialects.a1111.schema import A1111Img2ImgRequest, A1111Request
from app.dialects.a1111.sent_names import NAMES, OVERRIDE, UNIT_NAMES, UNITS
from app.dialects.a1111.union_types import kind_problems, mode_of
from app.inputs.image import GivenImage
from app.inputs.reader import InputReader
from app.parsing.requests import Reading, read, read_values
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import FieldProblem, InvalidRequest, NotFound
from contracts.requests.images.fit import Fit
from contracts.requests.schema import (
    ControlNetRequest,
    Img2ImgRequest,
    InpaintRequest,
    JobRequest,
    Txt2ImgRequest,
)

_AnyRequest = TypeVar("_AnyRequest", bound=A1111Request)

_MAX_IMAGES = 8
#: Previews of each image that a job shows while it runs.
_PREVIEWS = 4
_STRENGTH = 0.75
_FITS: Mapping[int, Fit] = {0: "stretch", 1: "cover", 2: "pad"}


@dataclass(frozen=True)
class Translator:
    """The data with which a caller's requests are translated.

    Attributes:
        stored: the options that the caller has set.
        inputs: reads the caller's images.
    """

    catalogue: Catalogue
    stored: Mapping[str, Any]
    inputs: InputReader

    def draft(self, reading: Reading[Any]) -> tuple[Reading[JobRequest], Mapping[str, GivenImage] | None]:
        """Return the reading of our request for the same images, and the images that are given with it, by field.

        They are None where something is wrong with the request: then they are not read.

        Raises:
            InvalidRequest, ImageTooLarge, NotAnImage, TooManyImages, Unavailable: about an image.
        """
        drafts = [self._translate(request) for request in reading.requests]
        ours = reading.translated([draft.reading for draft in drafts], [draft.problems for draft in drafts])
        if ours.problems:
            return ours, None
        return ours, self._read_images(reading.requests[0], ours.requests[0])

    def options_for(self, request: A1111Request) -> A1111Options:
        """The caller's options for one call: those that it overrides, else those that were set before."""
        overrides = given_options(request.override_settings, self.catalogue)
        return show_options({**self.stored, **overrides}, self.catalogue.default_model)

    def _translate(self, request: A1111Request) -> _Draft:
        options = self.options_for(request)
        fields = {**_common_fields(request), "model": options.sd_model_checkpoint}
        if options.CLIP_stop_at_last_layers > 1:
            fields["clip_skip"] = options.CLIP_stop_at_last_layers - 1
        if request.refiner_checkpoint.strip().lower() not in NOTHING:
            fields["refiner"] = self._refiner(request)
        if request.enable_hr:
            fields["hires"] = hires_fields(request)
        if options.live_previews_enable:
            fields["previews"] = _PREVIEWS
        problems: list[FieldProblem] = []
        try:
            model = self.catalogue.model(str(options.sd_model_checkpoint))
            problems += _choose_sampler(request, model, fields)
            if request.cfg_scale == 1 and "guidance_scale" in model.refuses:
                del fields["guidance_scale"]  # 1 turns guidance off, and this model has none
        except NotFound:
            pass  # it is refused with the ids of the known ones
        kind: type[JobRequest] = Txt2ImgRequest
        if isinstance(request, A1111Img2ImgRequest):
            kind = Img2ImgRequest if request.mask is None else InpaintRequest
            fields |= _image_fields(request)
        units = request.alwayson_scripts.units
        if units:
            kind = ControlNetRequest
            fields["controls"] = [self._control(unit, request) for _, unit in units]
            problems += self._kind_problems(units)
            fields.setdefault("fit", units[0][1].fit)
        return _Draft(read_values(kind, fields), problems)

    def _refiner(self, request: A1111Request) -> dict[str, Any]:
        switch_at = request.refiner_switch_at
        given = {} if switch_at is None else {"switch_at": switch_at}
        return {"model": model_named(request.refiner_checkpoint, self.catalogue), **given}

    def _control(self, unit: A1111ControlNetUnit, request: A1111Request) -> dict[str, Any]:
        name, source = unit.controlnet, unit.source
        if not source and isinstance(request, A1111Img2ImgRequest) and not self._reads_job_image(name):
            source = request.init_images[0]  # as the extension does
        return {
            "controlnet": "" if name.lower() in NOTHING else name,
            "image": source or None,
            "preprocess": unit.preprocess,
            "preprocess_options": unit.preprocess_options,
            "conditioning_scale": unit.weight,
            "guidance_start": unit.guidance_start,
            "guidance_end": unit.guidance_end,
            "mode": mode_of(unit.union_control_type, self._modes(name)),
        }

    def _modes(self, controlnet: str) -> tuple[str, ...]:
        return next((row.modes for row in self.catalogue.controlnets if row.id == controlnet), ())

    def _kind_problems(self, units: Iterable[tuple[int, A1111ControlNetUnit]]) -> Iterator[FieldProblem]:
        for number, unit in units:
            path = f"{UNITS}.{number}.{UNIT_NAMES['mode']}"
            modes = self._modes(unit.controlnet)
            yield from kind_problems(path, unit.union_control_type, unit.controlnet, modes)

    def _reads_job_image(self, controlnet: str) -> bool:
        return any(row.id == controlnet and row.kind == "inpaint" for row in self.catalogue.controlnets)

    def _read_images(self, request: A1111Request, ours: JobRequest) -> Mapping[str, GivenImage]:
        """Read the images that are not read as our own requests' are: for masks, and to compare their aspects."""
        given: dict[str, GivenImage] = {}
        if isinstance(request, A1111Img2ImgRequest) and request.mask is not None:
            image = self.inputs.read_image(NAMES["image"], request.init_images[0])
            mask = self.inputs.read_mask(
                NAMES["mask_image"], request.mask, inverted=bool(request.inpainting_mask_invert)
            )
            if request.inpainting_fill == 0:
                image = self.inputs.fill(NAMES["image"], image, mask)
            given |= {"image": image, "mask_image": mask}
        problems = []
        for index, (number, unit) in enumerate(request.alwayson_scripts.units):
            if unit.fit != getattr(ours, "fit", None) and unit.source:
                path = f"{UNITS}.{number}"
                control = self.inputs.read_image(f"{path}.image", unit.source)
                given[f"controls.{index}.image"] = control
                if not _fills((control.width, control.height), (request.width, request.height)):
                    message = (
                        f"{unit.resize_mode!r} differs from that of the other images, and this image has "
                        "another aspect ratio than the output; send one with the output's, or set one resize "
                        "mode for all"
                    )
                    problems.append(FieldProblem(f"{path}.resize_mode", message))
        if problems:
            raise InvalidRequest(problems)
        return given


@dataclass(frozen=True)
class _Draft:
    reading: Reading[JobRequest]
    problems: list[FieldProblem] = field(default_factory=list)


def read_request(kind: type[_AnyRequest], raw: bytes) -> Reading[_AnyRequest]:
    """Read a request of the web UI; fields that contradict each other are among the reading's problems.

    Raises:
        UnreadableBody, BodyTooLarge: as `read` says.
        InvalidRequest: so much is wrong that nothing more can be said.
    """
    reading = read(kind, raw)
    if not reading.requests:
        reading.require()
    return reading.with_problems(lambda request: list(_contradictions(request)))


def _contradictions(request: A1111Request) -> Iterator[FieldProblem]:
    images = request.batch_size * request.n_iter
    if images > _MAX_IMAGES:
        message = f"times batch_size may be at most {_MAX_IMAGES} images, got {images}; send several requests"
        yield FieldProblem("n_iter", message, f"n_iter × batch_size ≤ {_MAX_IMAGES}")
    if request.override_settings.model_fields_set and not request.override_settings_restore_afterwards:
        message = f"must be true: {OVERRIDE} act on this call only; POST /sdapi/v1/options sets your defaults"
        yield FieldProblem(f"{OVERRIDE}_restore_afterwards", message, [True])
    yield from hires_problems(request)
    for number, unit in request.alwayson_scripts.units:
        if unit.image and unit.input_image:
            yield FieldProblem(f"{UNITS}.{number}.input_image", "is another name for image; send one of them")


def _common_fields(request: A1111Request) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "prompt": request.prompt,
        "prompt_syntax": "a1111",
        "negative_prompt": request.negative_prompt or None,
        "width": request.width,
        "height": request.height,
        "seed": request.seed,
        "num_images": min(request.batch_size * request.n_iter, _MAX_IMAGES),
        "num_inference_steps": request.steps,
        "guidance_scale": request.cfg_scale,
        "response_format": "b64_json",
        "metadata": {"force_task_id": request.force_task_id} if request.force_task_id else None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _image_fields(request: A1111Img2ImgRequest) -> dict[str, Any]:
    strength = _STRENGTH if request.denoising_strength is None else request.denoising_strength
    fields: dict[str, Any] = {
        "image": request.init_images[0],
        "strength": strength,
        "fit": _FITS[int(request.resize_mode)],
    }
    if request.mask is not None:
        fields |= {"mask_image": request.mask, "mask_blur": request.mask_blur}
        if request.inpaint_full_res:
            fields["padding_mask_crop"] = request.inpaint_full_res_padding
    return fields


def _choose_sampler(request: A1111Request, model: ModelSpec, fields: dict[str, Any]) -> list[FieldProblem]:
    """Set our scheduler among the fields; return what is wrong with the sampler or its noise."""
    try:
        scheduler = scheduler_for(request.sampler, request.scheduler, model)
    except UnknownSampler as error:
        return [FieldProblem(error.field, error.message, error.allowed)]
    if scheduler is not None:
        fields["scheduler"] = scheduler
    found = find_sampler(request.sampler)
    eta = None if found is None else found[0].eta
    if eta is None or request.eta in (None, eta):
        return []
    message = f"must be {eta:g} for {request.sampler}, got {request.eta:g}: sampling noise is not changed here"
    return [FieldProblem("eta", message, [eta])]


def _fills(image: tuple[int, int], output: tuple[int | None, int | None]) -> bool:
    """Whether an image has the aspect of the output, as far as that is known."""
    width, height = output
    return width is not None and height is not None and image[0] * height == image[1] * width


def without_images(request: _AnyRequest) -> _AnyRequest:
    """The request as its answer repeats it, without its images and their memory."""
    units = request.alwayson_scripts.controlnet.args
    bare = [unit.model_copy(update={"image": None, "input_image": None}) for unit in units]
    scripts = request.alwayson_scripts
    scripts = scripts.model_copy(update={"controlnet": scripts.controlnet.model_copy(update={"args": bare})})
    changes: dict[str, Any] = {"alwayson_scripts": scripts}
    if isinstance(request, A1111Img2ImgRequest):
        changes |= {"init_images": (), "mask": None}
    return request.model_copy(update=changes)
