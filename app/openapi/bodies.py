"""The bodies that routes read themselves, for the document: JSON of a request, forms, files.

`document.py` adds the schemas that they refer to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from app.inputs.codec.decode import FORMATS
from app.parsing.schemas import dereference, without_null
from contracts.requests.schema import REQUESTS

Document = dict[str, Any]

REFERENCE = "#/components/schemas/{model}"
#: The schema of a file's bytes.
BINARY = {"type": "string", "format": "binary"}
#: Media types of the images that clients may send; HEIF is not promised, since its library is optional.
_IMAGE_TYPES = [f"image/{name.lower()}" for name in FORMATS if name != "HEIF"]
_FORM = "multipart/form-data"
#: Fields of an edit that are files in a form.
FORM_FILES = frozenset({"image", "mask"})


def request_body(kind: type[BaseModel]) -> Document:
    """`openapi_extra` of a route that takes this request as JSON, or of a webhook that sends this view."""
    schema = {"$ref": REFERENCE.format(model=kind.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def preprocess_body() -> Document:
    """`openapi_extra` of the route that makes a control image at once, or in a job."""
    kinds = ("PreprocessRequest", "ControlImageRequest")
    schema = {"anyOf": [{"$ref": REFERENCE.format(model=name)} for name in kinds]}
    example = {"image": "job:5f0c2b1e9d3a4c6f8b7a6d5e4c3b2a10/0", "preprocess": "canny"}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}
    }


def training_body(kind: type[BaseModel]) -> Document:
    """`openapi_extra` of the route that takes this request as JSON, or in a form with a zip file of images."""
    schema: Document = {"$ref": REFERENCE.format(model=kind.__name__)}
    text = {
        "type": "string",
        "description": "The request as JSON, without `images`.",
        "examples": ['{"name": "my-dog", "instance_prompt": "a photo of sks dog"}'],
    }
    zip_file = {
        **BINARY,
        "description": "A zip file of images; `NAME.txt` is the caption of `NAME.png`, and `NAME.control.png` "
        "its control image. Alternatively, `metadata.jsonl` names both.",
    }
    form = {
        "type": "object",
        "required": ["file", "request"],
        "description": "A form with one file.",
        "properties": {"file": zip_file, "request": text},
        "additionalProperties": False,
    }
    content = {"application/json": {"schema": schema}, _FORM: {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


def plan_body(more: Iterable[type[BaseModel]] = ()) -> Document:
    """`openapi_extra` of a route that takes a request of any task, named by its field `task`.

    Args:
        more: requests that it takes beside those for diffusion models.
    """
    kinds = [{"$ref": REFERENCE.format(model=kind.__name__)} for kind in (*REQUESTS.values(), *more)]
    schema = {"type": "object", "required": ["task"], "oneOf": kinds}
    example = {"task": "txt2img", "prompt": "a red circle on a blue background"}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}
    }


def edit_body(kind: type[BaseModel]) -> Document:
    """`openapi_extra` of a route that takes this request as JSON, or as a form with files."""
    form = {"schema": {"$ref": REFERENCE.format(model=form_name(kind))}, "encoding": _encoding(*FORM_FILES)}
    schema = {"$ref": REFERENCE.format(model=kind.__name__)}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}, _FORM: form}},
    }


def form_name(kind: type[BaseModel]) -> str:
    """Name of the schema of a request as a form."""
    return f"{kind.__name__.removesuffix('Request')}Form"


def form_schema(request: Document, example: Document, schemas: Document) -> Document:
    """The schema of a request as a form: its images are files, or text as in JSON; no field is null.

    Args:
        request: the schema of the same request as JSON.
        example: one as JSON; its fields that are no files become examples of the form's.
        schemas: what the request refers to.
    """
    properties = {name: _form_field(without_null(part), schemas) for name, part in request["properties"].items()}
    for name in FORM_FILES:
        description = f"{properties[name]['description']} In a form: the file, or one of these as text."
        properties[name] = {**BINARY, "description": description}
    for name in example.keys() - FORM_FILES:
        properties[name] = {**properties[name], "examples": [example[name]]}
    about = {
        "title": request["title"].replace("Request", "Form"),
        "description": f"{request['description']} As a form.",
    }
    return {**request, **about, "properties": properties}


def _form_field(part: Document, schemas: Document) -> Document:
    """The schema of a form's field: a list or an object is written as JSON."""
    if dereference({"$defs": schemas}, part).get("type") not in ("array", "object"):
        return part
    # Not with `contentMediaType`: Swagger UI takes such a field for a file.
    return {"type": "string", "description": f"{part['description']} In a form: as JSON."}


def rerun_body() -> Document:
    """`openapi_extra` of a route that takes any fields of a request, or no body."""
    schema = {
        "type": "object",
        "description": "Fields of the job's task that are to differ; null resets a field to its default.",
    }
    content = {"application/json": {"schema": schema, "example": {"seed": 8}}}
    return {"requestBody": {"required": False, "content": content}}


def upload_body() -> Document:
    """`openapi_extra` of a route that takes an image as raw bytes or in a form."""
    form = {
        "type": "object",
        "description": "A form with one file.",
        "required": ["file"],
        "properties": {"file": {**BINARY, "description": "The image file."}},
        "additionalProperties": False,
    }
    content = {
        _FORM: {"schema": form, "encoding": _encoding("file")},
        **{media_type: {"schema": BINARY} for media_type in (*_IMAGE_TYPES, "application/octet-stream")},
    }
    return {"requestBody": {"required": True, "content": content}}


def content_file_body() -> Document:
    """`openapi_extra` of a route that takes an image in the field `content` of a form."""
    form = {
        "type": "object",
        "description": "A form with one file.",
        "required": ["content"],
        "properties": {"content": {**BINARY, "description": "The image file."}},
        "additionalProperties": False,
    }
    return {
        "requestBody": {"required": True, "content": {_FORM: {"schema": form, "encoding": _encoding("content")}}}
    }


def adapter_body(noun: str, **fields: Document) -> Document:
    """`openapi_extra` of a route that takes an adapter's file, raw or in a form with these `fields`, too."""
    name = {
        "type": "string",
        "pattern": "^[a-z0-9][a-z0-9._-]{0,63}$",
        "description": f"Id of the {noun} in requests. Default: made from the file name.",
        "examples": ["my-style"],
    }
    form = {
        "type": "object",
        "required": ["file"],
        "description": "A form with one file.",
        "properties": {"file": {**BINARY, "description": "The `.safetensors` file."}, "name": name, **fields},
        "additionalProperties": False,
    }
    content = {_FORM: {"schema": form}, "application/octet-stream": {"schema": BINARY}}
    return {"requestBody": {"required": True, "content": content}}


def _encoding(*files: str) -> Document:
    return {name: {"contentType": ", ".join(_IMAGE_TYPES)} for name in files}


def json_lines_body() -> Document:
    """`openapi_extra` of a route that takes a file of requests in a form."""
    seconds = {
        "type": "integer",
        "minimum": 3600,
        "maximum": 2_592_000,
        "description": "Seconds until the file is deleted. Default: as for uploaded images.",
    }
    anchor = {"type": "string", "enum": ["created_at"], "description": "Always `created_at`. Default: that."}
    purpose = {"type": "string", "enum": ["batch"], "description": "What the file is for: always `batch`."}
    form = {
        "type": "object",
        "required": ["file", "purpose"],
        "description": "A form with one file.",
        "properties": {
            "file": {
                "type": "string",
                "format": "binary",
                "description": "Requests as JSON Lines.",
            },
            "purpose": purpose,
            "expires_after[anchor]": anchor,
            "expires_after[seconds]": seconds,
        },
        "additionalProperties": False,
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}
