"""OpenAI Images requests: OpenAI's fields beside all of ours, and the request of ours that they amount to.

A field of OpenAI's is a second name for one of ours, or has one value that is true here; anything else is refused.
Queues nothing, answers nothing.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, field_validator

from app.inputs.decoder import invert_alpha
from app.inputs.reader import InputReader
from app.parsing.requests import parse
from app.parsing.schemas import takes_text
from contracts.catalogue.catalogue import Catalogue
from contracts.errors import FieldProblem, ImageTooLarge, InvalidRequest, NotAnImage, NotFound
from contracts.requests.fields import ImageRef
from contracts.requests.schema import Img2ImgRequest, InpaintRequest, JobRequest, Txt2ImgRequest

Size = Annotated[str, Field(pattern=r"^(auto|[1-9][0-9]{1,3}x[1-9][0-9]{1,3})$")]
Quality = Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]
Identifier = Annotated[str, Field(max_length=512)]
_AnyImageRequest = TypeVar("_AnyImageRequest", "GenerationRequest", "EditRequest")

#: Denoising steps as a share of the model's own.
_STEPS_BY_QUALITY: Mapping[str, float] = {"low": 0.5, "high": 2.0, "hd": 2.0, "xhigh": 3.0, "max": 4.0}
_MAX_STEPS = 200


class ImageRequest(JobRequest):
    """OpenAI's fields of both calls; those of our own tasks may stand beside them."""

    n: int | None = Field(None, ge=1, le=8, description="number of images")
    size: Size | None = Field(None, description="`WIDTHxHEIGHT`, or `auto`: the model's own, or the image's")
    quality: Quality | None = Field(
        None, description="number of steps, as a share of the model's own: half for `low`, twice for `high`, …"
    )
    background: Literal["auto", "opaque"] | None = Field(None, description="images are opaque here")
    moderation: Literal["auto", "low"] | None = Field(None, description="nothing is moderated here")
    output_compression: int | None = Field(None, ge=0, le=100, description="quality of a JPEG or WebP")
    response_format: Literal["url", "b64_json"] = "b64_json"
    user: Identifier | None = Field(None, description="kept as the job's metadata `user`")
    safety_identifier: Identifier | None = Field(None, description="the same; goes before `user`")
    stream: bool | None = Field(None, description="answer with server-sent events")
    partial_images: int | None = Field(None, ge=0, le=10, description="previews of each image, when streaming")


class GenerationRequest(ImageRequest):
    """An image from a prompt."""


class EditRequest(ImageRequest):
    """An image from a prompt and an image; with a mask, only what is transparent in the mask is painted anew."""

    image: ImageRef
    mask: ImageRef | None = Field(None, description="transparent = repaint; as large as the image")
    input_fidelity: Literal["low"] | None = Field(None, description="to keep more, name a lower `strength`")
    strength: float | None = Field(None, gt=0, le=1, description="0.6; with a mask 1")
    mask_blur: int | None = Field(None, ge=0, le=64)
    padding_mask_crop: int | None = Field(None, ge=0, le=512)

    @field_validator("image", mode="before")
    @classmethod
    def _image_is_one(cls, image: object) -> object:
        if isinstance(image, list):
            raise ValueError("must be one picture; no model here edits several at a time")
        return image


#: Fields that are OpenAI's alone.
_FOREIGN = frozenset(ImageRequest.model_fields) - frozenset(JobRequest.model_fields) | {"input_fidelity", "mask"}


def read_request(kind: type[_AnyImageRequest], raw: bytes) -> _AnyImageRequest:
    """A request of OpenAI's from its JSON.

    Raises:
        UnreadableBody: no JSON.
        InvalidRequest: no such request, or two of its fields contradict each other.
    """
    request = parse(kind, raw)
    problems = list(_contradictions(request))
    if problems:
        raise InvalidRequest(problems)
    return request


def form_to_json(kind: type[ImageRequest], fields: Sequence[tuple[str, str | bytes]]) -> bytes:
    """A form's fields as the JSON that says the same; what is no text in them is written as JSON there too."""
    found: dict[str, list[Any]] = {}
    for name, value in fields:
        found.setdefault(name.removesuffix("[]"), []).append(_read_field(kind, name.removesuffix("[]"), value))
    return json.dumps({name: values[0] if len(values) == 1 else values for name, values in found.items()}).encode()


def _read_field(kind: type[ImageRequest], name: str, value: str | bytes) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return value if takes_text(kind, name) else _from_json(value)


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # validation says what it should have been


def translate(request: ImageRequest, catalogue: Catalogue, inputs: InputReader) -> JobRequest:
    """Our request for the same images; `inputs` reads a mask, whose transparency becomes white.

    Raises:
        InvalidRequest: what it amounts to is no request of ours, or the mask has no transparency.
        PictureTooLarge, NotAPicture, Unavailable: of the mask.
    """
    fields = request.model_dump(mode="json", exclude_unset=True, exclude_none=True, exclude=set(_FOREIGN))
    fields |= {"response_format": request.response_format, **dict(_renamed(request))}
    if request.quality in _STEPS_BY_QUALITY:
        fields["num_inference_steps"] = _steps(request, catalogue)
    if request.stream:
        fields |= {"previews": request.partial_images or request.previews, "response_format": "b64_json"}
    user = request.safety_identifier or request.user
    if user:
        fields["metadata"] = {**request.metadata, "user": user}
    if not isinstance(request, EditRequest):
        return _make(Txt2ImgRequest, fields)
    if request.mask is None:
        return _make(Img2ImgRequest, fields)
    mask = invert_alpha(inputs.load("mask", request.mask), "mask")
    # What is transparent may have no colours at all, so nothing of it is kept.
    return _make(InpaintRequest, {"strength": 1.0, **fields, "mask_image": base64.b64encode(mask).decode("ascii")})


def _make(kind: type[JobRequest], fields: Mapping[str, Any]) -> JobRequest:
    return parse(kind, json.dumps(fields).encode())


def _renamed(request: ImageRequest) -> Iterator[tuple[str, int]]:
    """Our fields that OpenAI has other names for."""
    if request.n is not None:
        yield "num_images", request.n
    if request.size not in (None, "auto"):
        yield from zip(("width", "height"), _sides(request), strict=True)
    if request.output_compression is not None and request.output_format != "png":
        yield "output_quality", max(1, request.output_compression)


def _steps(request: ImageRequest, catalogue: Catalogue) -> int:
    own = 1  # an unknown model is refused later, with the ids of those that there are
    with suppress(NotFound):
        row = catalogue.model(request.model or catalogue.default_model)
        own = int(str(row.default("num_inference_steps")))
    return min(max(1, round(own * _STEPS_BY_QUALITY[str(request.quality)])), _MAX_STEPS)


def _sides(request: ImageRequest) -> tuple[int, int]:
    width, _, height = str(request.size).partition("x")
    return int(width), int(height)


def _contradictions(request: ImageRequest) -> Iterator[FieldProblem]:
    """OpenAI's name and ours for one thing, and they differ."""
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
            yield FieldProblem(theirs, f"contradicts {ours}, which is another name for it; send one of them")
    if request.quality in _STEPS_BY_QUALITY and request.num_inference_steps is not None:
        yield FieldProblem("quality", "contradicts num_inference_steps, which it sets; send one of them")
    if request.partial_images and not request.stream:
        yield FieldProblem("partial_images", "is for streamed answers; set stream", 0)
    if request.output_format == "png" and (request.output_compression or 100) < 100:
        yield FieldProblem("output_compression", "a PNG is not compressed with loss; leave it out", 100)
    if request.stream and request.response_format == "url":
        yield FieldProblem("response_format", "events carry the images themselves", ["b64_json"])


@contextmanager
def foreign_names(request: ImageRequest) -> Iterator[None]:
    """Within it, what is wrong with a field is told by the name that the client used."""
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
        told = {(problem.field, problem.message): problem for problem in map(rename, error.problems)}
        raise InvalidRequest(list(told.values())) from None
    except (ImageTooLarge, NotAnImage) as error:
        error.problem = rename(error.problem)
        raise
