"""Translates OpenAI Images requests into ours, and the names of our fields back. Queues and answers nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from app.dialects.native_fields import NO_IMAGE
from app.dialects.openai.forms import with_plain_images
from app.dialects.openai.schema import EditRequest, ImageRequest
from app.inputs.image import GivenImage
from app.inputs.reader import InputReader
from app.parsing.requests import Reading, build, read, read_values
from contracts.catalogue.catalogue import Catalogue
from contracts.errors import FieldProblem, InvalidRequest, NotFound
from contracts.requests.schema import (
    Img2ImgRequest,
    InpaintRequest,
    JobRequest,
    ReferenceEditRequest,
    Txt2ImgRequest,
)

_AnyImageRequest = TypeVar("_AnyImageRequest", bound=ImageRequest)

#: Denoising steps as a multiple of the model's own.
_STEPS_BY_QUALITY: Mapping[str, float] = {"low": 0.5, "high": 2.0, "hd": 2.0, "xhigh": 3.0, "max": 4.0}
_MAX_STEPS = 200
#: Fields that only OpenAI has.
_FOREIGN = frozenset(ImageRequest.model_fields) - frozenset(JobRequest.model_fields) | {"input_fidelity", "mask"}


def read_request(kind: type[_AnyImageRequest], raw: bytes) -> Reading[_AnyImageRequest]:
    """Read an OpenAI request; fields that contradict each other are among the reading's problems.

    Raises:
        UnreadableBody, BodyTooLarge: as `read` says.
        InvalidRequest: the request cannot be checked any further.
    """
    reading = read(kind, with_plain_images(raw) if issubclass(kind, EditRequest) else raw)
    if not reading.requests:
        reading.require()
    return reading.with_problems(lambda request: list(_contradictions(request)))


def draft_request(
    reading: Reading[_AnyImageRequest], catalogue: Catalogue, inputs: InputReader, files: Mapping[str, bytes]
) -> tuple[Reading[JobRequest], Mapping[str, GivenImage] | None]:
    """Return the reading of our request for the same images, and the images that are given with it, by field.

    They are None where something is wrong with the request: then they are not read.

    Raises:
        InvalidRequest: the mask is opaque.
        ImageTooLarge, NotAnImage, Unavailable: about the mask.
    """
    ours = reading.translated([_read_ours(request, catalogue) for request in reading.requests])
    if ours.problems:
        return ours, None
    request, given = translate(reading.requests[0], catalogue, inputs, files)
    return Reading((request,)), given


def _read_ours(request: ImageRequest, catalogue: Catalogue) -> Reading[JobRequest]:
    """Our request as far as it is known without reading its images."""
    kind: type[JobRequest] = Txt2ImgRequest
    fields = _fields_of(request, catalogue)
    if isinstance(request, EditRequest):
        if not _has_references(request, catalogue):
            # What a mask can have may also be meant for the image's transparent part, which is not read yet.
            is_masked = request.mask is not None or bool(_of_masks(request))
            kind = InpaintRequest if is_masked else Img2ImgRequest
        else:
            is_masked = request.mask is not None
            kind = ReferenceEditRequest
            fields |= _references_of(request)
        fields |= {"mask_image": "given"} if is_masked else {}
    return read_values(kind, fields)


def _of_masks(request: EditRequest) -> list[str]:
    """The given fields that say how a mask is used."""
    return [name for name in ("mask_blur", "padding_mask_crop") if getattr(request, name) is not None]


def _has_references(request: EditRequest, catalogue: Catalogue) -> bool:
    """Whether the images of an edit are references: of a model that takes some, and not only to inpaint one image.

    Raises:
        InvalidRequest: there are several images, and the model takes no references.
    """
    takes_some = False
    with suppress(NotFound):  # an unknown model is refused later, with the ids of the known ones
        model = catalogue.model(request.model or catalogue.default_model)
        takes_some = model.family_spec.references is not None
        if request.references and not takes_some:
            able = [row.id for row in catalogue.models if row.family_spec.references is not None]
            others = f"; models here that take references: {', '.join(able)}" if able else ""
            message = (
                f"must be one image, got {len(request.references) + 1}: {model.id} edits one at a time{others}"
            )
            raise InvalidRequest([FieldProblem("image", message, "1 image")])
    return takes_some and (request.mask is None or bool(request.references))


def _references_of(request: EditRequest) -> dict[str, Any]:
    """Our fields for the images of an edit with references: with a mask, the first is the one that is edited."""
    further = list(request.references or ())
    return (
        {"references": [request.image, *further], "image": None}
        if request.mask is None
        else {"references": further}
    )


def translate(
    request: ImageRequest, catalogue: Catalogue, inputs: InputReader, files: Mapping[str, bytes]
) -> tuple[JobRequest, Mapping[str, GivenImage]]:
    """Return our request for the same images, and the images that are given with it, by field.

    Raises:
        InvalidRequest: a derived value is out of range, the mask is opaque, or there is nothing that a field about
            masks could act on.
        ImageTooLarge, NotAnImage, TooManyImages, Unavailable: about the image or the mask.
    """
    fields = _fields_of(request, catalogue)
    if not isinstance(request, EditRequest):
        return build(Txt2ImgRequest, fields), {}
    if _has_references(request, catalogue):
        return _translate_references(request, {**fields, **_references_of(request)}, inputs, files)
    given: dict[str, GivenImage] = {"image": files["image"]} if "image" in files else {}
    if request.mask is not None:
        given["mask_image"] = inputs.read_alpha_mask("mask", files.get("mask", request.mask))
    else:
        image, hole = inputs.read_with_hole("image", files.get("image", request.image))
        given["image"] = image
        if hole is None and _of_masks(request):
            message = (
                "has no effect without a mask or a transparent part of the image; send `mask`, or remove this"
            )
            raise InvalidRequest([FieldProblem(name, message) for name in _of_masks(request)])
        if hole is None:
            return build(Img2ImgRequest, fields), given
        given["mask_image"] = (
            hole  # as dall-e-2 does: without a mask, the image's own transparent part is regenerated
        )
    # Transparent pixels may have no color at all, so by default nothing of the image is kept there.
    return build(InpaintRequest, {"strength": 1.0, **fields, "mask_image": "given"}), given


def _translate_references(
    request: EditRequest, fields: dict[str, Any], inputs: InputReader, files: Mapping[str, bytes]
) -> tuple[JobRequest, Mapping[str, GivenImage]]:
    """The same for an edit with references."""
    given: dict[str, GivenImage] = {
        _our_field(request, name): data for name, data in files.items() if name != "mask"
    }
    fields = {name: value for name, value in fields.items() if value is not None}
    if request.mask is None:
        return build(ReferenceEditRequest, fields), given
    given["mask_image"] = inputs.read_alpha_mask("mask", files.get("mask", request.mask))
    return build(ReferenceEditRequest, {"strength": 1.0, **fields, "mask_image": "given"}), given


def _our_field(request: EditRequest, name: str) -> str:
    """Our field for the image that is `image`, `image.1` and so on in an edit with references."""
    number = int(name.partition(".")[2] or 0) - (request.mask is not None)
    return "image" if number < 0 else f"references.{number}"


def _fields_of(request: ImageRequest, catalogue: Catalogue) -> dict[str, Any]:
    """The fields of our request that are known without reading its images."""
    fields = request.model_dump(mode="json", exclude_unset=True, exclude_none=True, exclude=set(_FOREIGN))
    fields |= {"prompt": request.prompt, "response_format": request.response_format, **dict(_renamed(request))}
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
    """Yield fields whose value differs from that of another field with the same meaning, or gives no image."""
    if request.check_step is not None:
        yield FieldProblem("check_step", NO_IMAGE)
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


def foreign_name(request: ImageRequest, field: str) -> str:
    """The name under which the client sent one of our fields."""
    names = {}
    if isinstance(request, EditRequest):
        names["mask_image"] = "image" if request.mask is None else "mask"  # else the image's own transparent part
        names["references"] = "image"
        for number in range(len(request.references or ()) + 1):
            theirs = f"image.{number}" if number else "image"
            names[_our_field(request, theirs)] = theirs
    if request.size not in (None, "auto"):
        names |= {"width": "size", "height": "size"}
    if request.quality in _STEPS_BY_QUALITY:
        names["num_inference_steps"] = "quality"
    return names.get(field, field)
