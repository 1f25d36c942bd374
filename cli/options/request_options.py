"""Command-line options of `darkroom generate` for the fields of a request, made from the requests' own schema.

A field that is added there is an option here. Images and adapters, which are files or lists, have options of their
own in `generate.py`. Checks types and ranges only: the service knows what a model allows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from contracts.requests.schema import REQUESTS

Json = dict[str, Any]

#: Fields that are given otherwise, or mean nothing to a client that polls.
_OTHERWISE = frozenset(
    {"prompt", "task", "image", "mask_image", "control_image", "references", "loras", "controls", "ip_adapters"}
    | {"textual_inversions", "guidance", "dynamic_thresholding", "refiner", "cascade", "hires"}
    | {"response_format", "webhook", "metadata", "cancel_on_disconnect", "check_step"}
)
#: Type of a field that is either.
_NUMBER_OR_TEXT = "integer or string"
#: Further names of options: short ones, and those of earlier releases.
_ALIASES = {
    "negative_prompt": ("--negative",),
    "num_inference_steps": ("--steps",),
    "guidance_scale": ("--guidance",),
    "num_images": ("-n",),
    "output_format": ("--format",),
}


def add_request_options(parser: argparse.ArgumentParser) -> None:
    """Add one option for each field, with the field's description as its help."""
    group = parser.add_argument_group("fields of the request")
    for name, field in _fields().items():
        group.add_argument(
            *_ALIASES.get(name, ()),
            f"--{name.replace('_', '-')}",
            dest=name,
            type=partial(_read_value, field),
            metavar=_metavar(field),
            help=str(field.get("description", "")).replace("%", "%%"),
        )
    group.add_argument(
        "--guidance-kind",
        dest="guidance",
        type=_read_guidance,
        metavar="KIND[:OPTION=NUMBER,...]",
        help="another kind of guidance, such as apg:eta=0.5 or slg:layers=7+8 (GET /v1/models/ID)",
    )
    group.add_argument(
        "--dynamic-thresholding",
        type=_read_thresholding,
        metavar="RATIO[:MAX_VALUE]",
        help="dynamic thresholding for models that work on pixels: its ratio, and its maximum value",
    )
    group.add_argument(
        "--refiner",
        type=_read_refiner,
        metavar="MODEL[:SWITCH_AT]",
        help="a second model that runs the last steps, from this fraction of the noise schedule on (0.8)",
    )
    group.add_argument(
        "--cascade",
        type=_read_cascade,
        metavar="MODEL[:STEPS]",
        help="a second model that makes images four times as wide and high, in this many steps (50)",
    )
    group.add_argument(
        "--hires",
        type=_read_hires,
        metavar="SCALE[:UPSCALER]",
        help="a second pass that enlarges the images by this factor, with lanczos, latent or an upscaler",
    )
    group.add_argument("--webhook", metavar="URL", help="https: address to which the end of the job is posted")
    group.add_argument(
        "--metadata",
        action="append",
        default=[],
        type=_read_pair,
        metavar="NAME=VALUE",
        help="a name and value of your choice, returned with the job; may be repeated",
    )


def read_request_options(arguments: argparse.Namespace) -> Json:
    """The fields that were given; the others are left to the service."""
    body = {name: getattr(arguments, name) for name in _fields() if getattr(arguments, name) is not None}
    if arguments.guidance:
        body["guidance"] = arguments.guidance
    if arguments.dynamic_thresholding:
        body["dynamic_thresholding"] = arguments.dynamic_thresholding
    if arguments.refiner:
        body["refiner"] = arguments.refiner
    if arguments.cascade:
        body["cascade"] = arguments.cascade
    if arguments.hires:
        body["hires"] = arguments.hires
    if arguments.webhook:
        body["webhook"] = {"url": arguments.webhook}
    if arguments.metadata:
        body["metadata"] = dict(arguments.metadata)
    return body


@cache
def _fields() -> Mapping[str, Json]:
    """Field → its JSON Schema without null, over the requests of all tasks."""
    found: dict[str, Json] = {}
    for request in REQUESTS.values():
        schema = request.model_json_schema()
        for name, field in schema["properties"].items():
            if name not in _OTHERWISE and name not in found:
                found[name] = _without_null(field, schema.get("$defs", {}))
    return found


def _without_null(field: Json, definitions: Mapping[str, Json]) -> Json:
    branches = [branch for branch in field.get("anyOf", [field]) if branch.get("type") != "null"]
    branch = branches[0]
    if "$ref" in branch:
        branch = definitions[branch["$ref"].rpartition("/")[2]]
    if branch.get("type") == "integer" and any(other.get("type") == "string" for other in branches):
        branch = {**branch, "type": _NUMBER_OR_TEXT}
    return {**branch, "description": field.get("description", branch.get("description", ""))}


def _metavar(field: Json) -> str:
    if "enum" in field:
        return "{" + ",".join(map(str, field["enum"])) + "}"
    names = {"integer": "N", "number": "X", "boolean": "{true,false}", "array": "N,N", _NUMBER_OR_TEXT: "N|TEXT"}
    return names.get(field["type"], "TEXT")


def _read_value(field: Json, text: str) -> object:
    """Read an option's text as a value of the field's type.

    Raises:
        argparse.ArgumentTypeError: it is not one; says what is.
    """
    allowed = field.get("enum")
    if allowed is not None and text not in allowed:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(allowed)}, got {text!r}")
    readers: dict[str, tuple[Callable[[str], object], str]] = {
        "integer": (int, "a whole number"),
        _NUMBER_OR_TEXT: (_read_number_or_text, "a whole number or text"),
        "number": (float, "a number"),
        "boolean": (_read_boolean, "true or false"),
        "array": (_read_numbers, "whole numbers separated by commas, such as 1024,768"),
    }
    read, expected = readers.get(field["type"], (str, "text"))
    try:
        value = read(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be {expected}, got {text!r}") from None
    _check_range(field, value)
    return value


def _check_range(field: Json, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    lowest, highest = field.get("minimum", field.get("exclusiveMinimum")), field.get("maximum")
    is_below = lowest is not None and (value < lowest or (value == lowest and "exclusiveMinimum" in field))
    if is_below or (highest is not None and value > highest):
        above = "more than " if "exclusiveMinimum" in field else ""
        raise argparse.ArgumentTypeError(f"must be {above}{lowest} to {highest}, got {value}")


def _read_thresholding(text: str) -> Json:
    written = dict(zip(("ratio", "max_value"), text.split(":", 1), strict=False))
    try:
        return {name: float(number) for name, number in written.items() if number}
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be RATIO or RATIO:MAX_VALUE, such as 0.95:1.5 or :1, got {text!r}"
        ) from None


def _read_refiner(text: str) -> Json:
    model, separator, share = text.partition(":")
    try:
        return {"model": model, **({"switch_at": float(share)} if separator else {})}
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be MODEL or MODEL:SHARE, such as :0.8, got {text!r}") from None


def _read_cascade(text: str) -> Json:
    model, separator, steps = text.partition(":")
    try:
        return {"model": model, **({"steps": int(steps)} if separator else {})}
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be MODEL or MODEL:STEPS, such as :50, got {text!r}") from None


def _read_hires(text: str) -> Json:
    scale, separator, upscaler = text.partition(":")
    try:
        return {"scale": float(scale), **({"upscaler": upscaler} if separator else {})}
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be SCALE or SCALE:UPSCALER, such as 2:latent, got {text!r}"
        ) from None


def _read_number_or_text(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() else text


def _read_boolean(text: str) -> bool:
    value = json.loads(text.lower())
    if not isinstance(value, bool):
        raise ValueError(text)
    return value


def _read_numbers(text: str) -> list[int]:
    return [int(part) for part in text.strip("[]()").split(",")]


def _read_guidance(text: str) -> Json:
    """Read `KIND:OPTION=NUMBER,…`; layers are separated by `+`."""
    kind, _, written = text.partition(":")
    guidance: Json = {"kind": kind}
    for option in filter(None, written.split(",")):
        name, _, value = option.partition("=")
        try:
            numbers = [json.loads(part) for part in value.split("+")]
        except ValueError:
            message = f"must be KIND[:OPTION=NUMBER,...] such as slg:scale=2,layers=7+8, got {text!r}"
            raise argparse.ArgumentTypeError(message) from None
        guidance[name] = numbers if name == "layers" else numbers[0]
    return guidance


def _read_pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, got {text!r}")
    return name, value
