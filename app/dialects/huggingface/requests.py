"""Translates requests of Hugging Face's inference clients into ours. Queues and answers nothing.

`inputs` is the prompt of a text-to-image call and the image of an image-to-image call; `parameters` are called as
in diffusers, as ours are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from app.dialects.native_fields import read_fields
from app.parsing.requests import Reading, parse
from contracts.errors import FieldProblem, InvalidRequest
from contracts.requests.schema import JobRequest
from contracts.requests.strict_model import StrictModel

#: How base64 of PNG, JPEG, WebP, GIF, BMP and AVIF begins, and other ways to name an image.
_IMAGE_BEGINNINGS = (
    "iVBORw0KGgo",
    "/9j/",
    "UklGR",
    "R0lGOD",
    "Qk",
    "AAAA",
    "data:",
    "upload:",
    "job:",
    "https://",
)
#: No prompt is as long, and no base64 of an image is shorter.
_SHORTEST_IMAGE = 60
_NAMED = ("data:", "upload:", "job:", "https://")
_FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/webp": "webp"}
_ANY = {"*/*": "png", "image/*": "png"}


class HuggingFaceOptions(StrictModel):
    """Options of Hugging Face's own service, which have no effect here."""

    use_cache: bool | None = Field(
        None, description="Only for compatibility: answers are not cached. Default: the same."
    )
    wait_for_model: bool | None = Field(
        None,
        description="Only for compatibility: a call always waits for its model. Default: the same.",
    )


class HuggingFaceRequest(StrictModel):
    """A text-to-image or image-to-image call of Hugging Face's clients."""

    inputs: str = Field(
        min_length=1,
        description="The prompt; or, with `prompt` among the parameters, the image to start from, given as the "
        "image of an img2img job is.",
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        description="`prompt` of an image-to-image call, `target_size` as an object of width and height, and "
        "every field of a job except `model` and `response_format`. The answer is one image. Default: none.",
    )
    options: HuggingFaceOptions | None = Field(
        None, description="Options of Hugging Face's own service. Default: none."
    )


@dataclass(frozen=True)
class Translation:
    """Our request for the same image.

    Attributes:
        name_of: the path of one of our fields -> the path by which the client sent it.
    """

    reading: Reading[JobRequest]
    name_of: Callable[[str], str]


def translate(raw: bytes, model_id: str | None, accept: str) -> Translation:
    """Translate a body.

    Args:
        model_id: of the URL; None: the default model.
        accept: the header of that name; decides the format where the parameters name none.

    Raises:
        BodyTooLarge, UnreadableBody, InvalidRequest: about what only this API has; the rest is in the reading.
    """
    body = parse(HuggingFaceRequest, raw)
    parameters = {name: value for name, value in body.parameters.items() if value is not None}
    is_image = "prompt" in parameters or _looks_like_image(body.inputs)
    fields, sent, problems = _renamed(parameters)
    sent |= {"image" if is_image else "prompt": "inputs", "model": "model"}
    if is_image and "prompt" not in parameters:
        problems.append(FieldProblem("parameters.prompt", "is required; describe the image that you want"))
    if "output_format" not in fields:
        fields["output_format"] = _format_of(accept, problems)
    problems += _inexpressible(parameters)
    if problems:
        raise InvalidRequest(problems)
    fields["image" if is_image else "prompt"] = body.inputs
    if model_id is not None:
        fields["model"] = model_id

    def name_of(field: str) -> str:
        return sent.get(field) or ("body" if field == "body" else f"parameters.{field}")

    return Translation(read_fields(fields), name_of)


def _renamed(parameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], list[FieldProblem]]:
    """Our fields, the paths of those that were sent by other names, and what is wrong with the names."""
    fields, sent, problems = dict(parameters), {}, []
    theirs: dict[str, tuple[str, Any]] = {}
    if isinstance(size := fields.get("target_size"), dict):  # a list is our field of the same name
        del fields["target_size"]
        if size.keys() - {"width", "height"}:
            problems.append(
                FieldProblem("parameters.target_size", "must have width and height only", ["width", "height"])
            )
        theirs |= {side: (f"target_size.{side}", size[side]) for side in ("width", "height") if side in size}
    if (count := fields.pop("num_images_per_prompt", None)) is not None:
        theirs["num_images"] = ("num_images_per_prompt", count)
    for ours, (path, value) in theirs.items():
        if fields.get(ours, value) != value:
            message = f"contradicts {ours}, got {value!r:.40} and {fields[ours]!r:.40}; send one of them"
            problems.append(FieldProblem(f"parameters.{path}", message))
        fields[ours], sent[ours] = value, f"parameters.{path}"
    return fields, sent, problems


def _inexpressible(parameters: Mapping[str, Any]) -> list[FieldProblem]:
    """What an answer of one image's bytes cannot have."""
    problems = []
    for name in ("num_images", "num_images_per_prompt"):
        count = parameters.get(name)
        if isinstance(count, int) and count > 1:
            message = f"must be 1, since the answer is one image, got {count}; POST /v1/txt2img makes several"
            problems.append(FieldProblem(f"parameters.{name}", message, 1))
    if "response_format" in parameters:
        problems.append(FieldProblem("parameters.response_format", "the answer is the image itself; remove it"))
    if "model" in parameters:
        message = "the URL names the model: POST /hf/models/ID; remove it"
        problems.append(FieldProblem("parameters.model", message))
    return problems


def _looks_like_image(text: str) -> bool:
    if text.startswith(_NAMED):
        return True
    return len(text) >= _SHORTEST_IMAGE and text.startswith(_IMAGE_BEGINNINGS) and " " not in text


def _format_of(accept: str, problems: list[FieldProblem]) -> str:
    """The first format that a client accepts; PNG where it accepts anything."""
    ranges = [part.partition(";") for part in accept.lower().split(",") if part.strip()]
    for name, _, options in ranges:
        found = (_FORMATS | _ANY).get(name.strip())
        if found is not None and options.replace(" ", "") not in ("q=0", "q=0.0"):
            return found
    if ranges:
        message = f"must name image/png, image/jpeg or image/webp, got {accept[:80]!r}; name one, or leave it out"
        problems.append(FieldProblem("Accept", message, ["image/png", "image/jpeg", "image/webp"]))
    return "png"
