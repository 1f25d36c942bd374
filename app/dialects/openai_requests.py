"""OpenAI Images requests: OpenAI's fields beside all of ours, and their translation into a request of ours.

A field of OpenAI's is another name for one of ours, or accepts the one value that is true here; anything else is
refused. Queues and answers nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, field_validator
from pydantic_core import from_json

from app.inputs.reader import GivenImage, InputReader
from app.parsing.bodies import ReceivedBody
from app.parsing.json_bodies import check_json
from app.parsing.partial_requests import agreed
from app.parsing.requests import Reading, build, read, read_values
from app.parsing.schemas import takes_text
from contracts.catalogue.catalogue import Catalogue
from contracts.errors import FieldProblem, ImageTooLarge, InvalidRequest, NotAnImage, NotFound
from contracts.requests.fields import PROMPT_FIELDS, FitField, ImageRef, MaskBlur, MaskCrop, Strength
from contracts.requests.schema import Img2ImgRequest, InpaintRequest, JobRequest, Txt2ImgRequest

_SIZE = re.compile(r"auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4}")
#: A size as people also write it: 64X64, 64×64, "64 x 64", 64*64, 64:64.
_LIKE_A_SIZE = re.compile(r"\s*([1-9][0-9]{0,4})\s*[xX×*:,]\s*([1-9][0-9]{0,4})\s*")


def _check_size(text: str) -> str:
    if _SIZE.fullmatch(text):
        return text
    alike = _LIKE_A_SIZE.fullmatch(text)
    example = "such as 64x64" if alike is None else f"here {alike[1]}x{alike[2]}"
    raise ValueError(f"must be auto, or width and height in pixels with a small x between, {example}")


Size = Annotated[str, AfterValidator(_check_size), Field(json_schema_extra={"pattern": f"^({_SIZE.pattern})$"})]
Quality = Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]
Identifier = Annotated[str, Field(max_length=512)]
_AnyImageRequest = TypeVar("_AnyImageRequest", "GenerationRequest", "EditRequest")

#: Denoising steps as a multiple of the model's own.
_STEPS_BY_QUALITY: Mapping[str, float] = {"low": 0.5, "high": 2.0, "hd": 2.0, "xhigh": 3.0, "max": 4.0}
_MAX_STEPS = 200
_FILE_FIELDS = ("image", "mask")
#: Fields of a form in which `null` is a word, and not an absent value.
_FREE_TEXT = frozenset({*PROMPT_FIELDS, "user", "safety_identifier"})


class ImageRequest(JobRequest):
    """OpenAI's fields of both calls; all fields of our own tasks may be sent with them."""

    n: int | None = Field(
        None, ge=1, le=8, description="Number of images; another name for `num_images`. Default: 1."
    )
    size: Size | None = Field(
        None,
        description="`WIDTHxHEIGHT` in pixels; another name for `width` and `height`. Default and `auto`: the "
        "model's own size, or that of the image in an edit.",
    )
    quality: Quality | None = Field(
        None,
        description="Number of steps relative to the model's own: half of them for `low`, twice as many for "
        "`high` and `hd`, 3 times for `xhigh`, 4 times for `max`. Default: the model's own number.",
    )
    background: Literal["auto", "opaque"] | None = Field(
        None, description="Only for compatibility: images are always opaque."
    )
    moderation: Literal["auto", "low"] | None = Field(
        None, description="Only for compatibility: nothing is moderated."
    )
    output_compression: int | None = Field(
        None,
        ge=0,
        le=100,
        description="Quality of the files, for `jpeg` and `webp` only; another name for `output_quality`. "
        "Default: 95.",
    )
    response_format: Literal["url", "b64_json"] = Field(
        "b64_json", description="How images are returned: as base64, or as signed URLs."
    )
    user: Identifier | None = Field(
        None, description="Your own id of the end user; stored as `user` in the job's metadata. Default: none."
    )
    safety_identifier: Identifier | None = Field(
        None, description="Another name for `user`, which it takes precedence over. Default: none."
    )
    stream: bool | None = Field(None, description="Whether to answer with server-sent events. Default: false.")
    partial_images: int | None = Field(
        None, ge=0, le=10, description="Maximum number of previews of each image; only with `stream`. Default: 0."
    )


class GenerationRequest(ImageRequest):
    """An image from a prompt."""


class EditRequest(ImageRequest):
    """An image from a prompt and an image.

    Only what is transparent in the mask, or without a mask in the image, is regenerated; all of an opaque image
    without a mask is.
    """

    image: ImageRef
    mask: ImageRef | None = Field(
        None,
        description="Mask as large as `image`: transparent where the image is regenerated. Default: all of it is.",
    )
    input_fidelity: Literal["low"] | None = Field(
        None, description="Only for compatibility: to keep more of the image, lower `strength`."
    )
    strength: Strength | None = Field(
        None,
        description="How much `image` is changed: the share of the steps that is run. Default: 0.6; 1 with a "
        "mask, or where `image` has a transparent part.",
    )
    mask_blur: MaskBlur | None = None
    padding_mask_crop: MaskCrop | None = None
    fit: FitField | None = None

    @field_validator("image", mode="before")
    @classmethod
    def _image_is_one(cls, image: object) -> object:
        if isinstance(image, list):
            raise ValueError(f"must be one image, got {len(image)}; models here edit one at a time")
        return image


@dataclass
class RequestBody:
    """The body of a call.

    Attributes:
        json: the fields. A file of a form is represented by its hash, so equal forms have equal JSON.
        files: the form's image files by field; bytes as they were received.
        received: the whole body, where its memory is counted.
    """

    json: bytes
    files: Mapping[str, bytes] = field(default_factory=dict)
    received: ReceivedBody | None = None

    def release(self) -> None:
        """Forget everything, once the job is accepted."""
        self.json, self.files = b"", {}
        if self.received is not None:
            self.received.release()


#: Fields that only OpenAI has.
_FOREIGN = frozenset(ImageRequest.model_fields) - frozenset(JobRequest.model_fields) | {"input_fidelity", "mask"}


def read_request(kind: type[_AnyImageRequest], raw: bytes) -> Reading[_AnyImageRequest]:
    """Read an OpenAI request; fields that contradict each other are among the reading's problems.

    Raises:
        UnreadableBody, BodyTooLarge: as `read` says.
        InvalidRequest: so much is wrong that nothing more can be said.
    """
    reading = read(kind, raw)
    if not reading.requests:
        reading.require()
    return reading.with_problems(lambda request: list(_contradictions(request)))


def draft_request(
    reading: Reading[_AnyImageRequest], catalogue: Catalogue, inputs: InputReader, files: Mapping[str, bytes]
) -> tuple[Reading[JobRequest], Mapping[str, GivenImage]]:
    """Return the reading of our request for the same images, and the images that are given with it, by field.

    Raises:
        InvalidRequest: the mask is opaque.
        ImageTooLarge, NotAnImage, Unavailable: about the mask.
    """
    ours: list[Reading[JobRequest]] = [_read_ours(request, catalogue) for request in reading.requests]
    problems = (*reading.problems, *agreed([found.problems for found in ours], reading.made_up))
    if problems:
        requests = tuple(request for found in ours for request in found.requests)
        made_up = reading.made_up.union(*(found.made_up for found in ours))
        return Reading(requests, problems, max(reading.count, len(problems)), made_up), {}
    request, given = translate(reading.requests[0], catalogue, inputs, files)
    return Reading((request,)), given


def _read_ours(request: ImageRequest, catalogue: Catalogue) -> Reading[JobRequest]:
    """Our request as far as it is known without reading its images."""
    kind: type[JobRequest] = Txt2ImgRequest
    fields = _fields_of(request, catalogue)
    if isinstance(request, EditRequest):
        kind = Img2ImgRequest if request.mask is None else InpaintRequest
        fields |= {} if request.mask is None else {"mask_image": "given"}
    return read_values(kind, fields)


def without_images(request: ImageRequest) -> ImageRequest:
    """The request as its answer needs it, without the memory of its images."""
    return request.model_copy(update={name: "" for name in _FILE_FIELDS if name in type(request).model_fields})


def read_edit_form(fields: Sequence[tuple[str, str | bytes]]) -> RequestBody:
    """Turn the fields of a form into JSON and files; values of non-text fields are parsed as JSON."""
    values: dict[str, list[Any]] = {}
    files: dict[str, bytes] = {}
    for name, value in fields:
        name = name.removesuffix("[]")  # some clients send image[]
        if isinstance(value, bytes) and name in _FILE_FIELDS:
            files[name] = value
        values.setdefault(name, []).append(_form_value(name, value))
    flat = {name: entries[0] if len(entries) == 1 else entries for name, entries in values.items()}
    return RequestBody(json.dumps(flat).encode(), files)


def _form_value(name: str, value: str | bytes) -> Any:
    if isinstance(value, bytes):
        digest = f"file:{hashlib.sha256(value).hexdigest()}"
        return digest if name in _FILE_FIELDS else {"file": digest}  # no other field accepts an object like this
    if takes_text(EditRequest, name):
        return None if value == "null" and name not in _FREE_TEXT else value
    try:
        check_json(value.encode())
        return from_json(value)
    except ValueError:
        return value  # validation reports what it should have been


def translate(
    request: ImageRequest, catalogue: Catalogue, inputs: InputReader, files: Mapping[str, bytes]
) -> tuple[JobRequest, Mapping[str, GivenImage]]:
    """Return our request for the same images, and the images that are given with it, by field.

    Raises:
        InvalidRequest: a derived value is out of range, or the mask is opaque.
        ImageTooLarge, NotAnImage, TooManyImages, Unavailable: about the image or the mask.
    """
    fields = _fields_of(request, catalogue)
    if not isinstance(request, EditRequest):
        return build(Txt2ImgRequest, fields), {}
    given: dict[str, GivenImage] = {"image": files["image"]} if "image" in files else {}
    if request.mask is not None:
        given["mask_image"] = inputs.read_alpha_mask("mask", files.get("mask", request.mask))
    else:
        image, hole = inputs.read_with_hole("image", files.get("image", request.image))
        given["image"] = image
        if hole is None:
            return build(Img2ImgRequest, fields), given
        given["mask_image"] = (
            hole  # as dall-e-2 does: without a mask, the image's own transparent part is regenerated
        )
    # Transparent pixels may have no color at all, so by default nothing of the image is kept there.
    return build(InpaintRequest, {"strength": 1.0, **fields, "mask_image": "given"}), given


def _fields_of(request: ImageRequest, catalogue: Catalogue) -> dict[str, Any]:
    """The fields of our request that are known without reading its images."""
    fields = request.model_dump(mode="json", exclude_unset=True, exclude_none=True, exclude=set(_FOREIGN))
    fields |= {"response_format": request.response_format, **dict(_renamed(request))}
    if request.quality in _STEPS_BY_QUALITY:
        fields["num_inference_steps"] = _steps(request, catalogue)
    if request.stream:
        fields |= {"previews": request.partial_images or request.previews, "response_format": "b64_json"}
    user = request.safety_identifier or request.user
    if user:
        fields["metadata"] = {**request.metadata, "user": user}
    return fields


def _renamed(request: ImageRequest) -> Iterator[tuple[str, int]]:
    """Yield our fields that OpenAI has other names for."""
    if request.n is not None:
        yield "num_images", request.n
    if request.size not in (None, "auto"):
        yield from zip(("width", "height"), _sides(request), strict=True)
    if request.output_compression is not None and request.output_format != "png":
        yield "output_quality", max(1, request.output_compression)


def _steps(request: ImageRequest, catalogue: Catalogue) -> int:
    own = 1  # an unknown model is refused later, with the ids of the known ones
    with suppress(NotFound):
        model = catalogue.model(request.model or catalogue.default_model)
        own = int(str(model.default("num_inference_steps")))
    return min(max(1, round(own * _STEPS_BY_QUALITY[str(request.quality)])), _MAX_STEPS)


def _sides(request: ImageRequest) -> tuple[int, int]:
    width, _, height = str(request.size).partition("x")
    return int(width), int(height)


def _contradictions(request: ImageRequest) -> Iterator[FieldProblem]:
    """Yield fields whose value differs from that of another field with the same meaning."""
    size = _sides(request) if request.size not in (None, "auto") else (None, None)
    for theirs, ours, value in (
        ("n", "num_images", request.n),
        ("size", "width", size[0]),
        ("size", "height", size[1]),
        ("output_compression", "output_quality", request.output_compression),
        ("partial_images", "previews", request.partial_images),
    ):
        is_given = value is not None and ours in request.model_fields_set
        if is_given and getattr(request, ours) not in (None, value):
            message = f"contradicts {ours}, got {value} and {getattr(request, ours)}; send one of them"
            yield FieldProblem(theirs, message)
    if request.quality in _STEPS_BY_QUALITY and request.num_inference_steps is not None:
        yield FieldProblem("quality", "also sets num_inference_steps; send one of them")
    if request.partial_images and not request.stream:
        yield FieldProblem("partial_images", "needs stream: true", 0)
    if request.output_format == "png" and (request.output_compression or 100) < 100:
        message = f"must be 100 for PNG, which is lossless, got {request.output_compression}; remove it"
        yield FieldProblem("output_compression", message, 100)
    if request.stream and request.response_format == "url":
        yield FieldProblem("response_format", "must be b64_json with stream, got url", ["b64_json"])


@contextmanager
def foreign_names(request: ImageRequest) -> Iterator[None]:
    """Rename the fields of errors raised within to the names that the client used."""
    names = {"mask_image": "mask"}
    if request.size not in (None, "auto"):
        names |= {"width": "size", "height": "size"}
    if request.quality in _STEPS_BY_QUALITY:
        names["num_inference_steps"] = "quality"

    def rename(problem: FieldProblem) -> FieldProblem:
        return FieldProblem(names.get(problem.field, problem.field), problem.message, problem.allowed)

    try:
        yield
    except InvalidRequest as error:
        problems = {(problem.field, problem.message): problem for problem in map(rename, error.problems)}
        raise InvalidRequest(list(problems.values())) from None
    except (ImageTooLarge, NotAnImage) as error:
        error.problem = rename(error.problem)
        raise
