"""What the web UI's text of parameters says of images beside the prompt: ControlNets, IP-Adapters, references.

It has their names and numbers. The images themselves are not in the file, so that they are missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from app.png_info.draft import PLACEHOLDER, Draft
from app.png_info.json_texts import read_number
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Task
from contracts.errors import NotFound
from contracts.requests.images.image_fields import MAX_REFERENCES

CONTROLNET, IP_ADAPTER, REFERENCES = "ControlNet ", "IP-Adapter ", "References"
UNIT = re.compile(rf"({CONTROLNET}|{IP_ADAPTER})[0-9]", re.ASCII)
_PAIR = re.compile(r"(\w[\w ]{1,30}):[ ]?([^,]{0,200})(?:,[ ]?|$)")
#: Our field -> the name in a unit of the web UI's extension for ControlNets.
_CONTROL_NUMBERS = {
    "conditioning_scale": "Weight",
    "guidance_start": "Guidance Start",
    "guidance_end": "Guidance End",
}
_NO_PREPROCESSOR = (
    "control images are not made from ordinary images here; add one that the ControlNet can use as it is"
)
_BALANCED = "Balanced"
_MAX_IMAGES = 4


def read_images(draft: Draft, found: Mapping[str, str], catalogue: Catalogue) -> None:
    """Add what a text says, and choose the task that takes it."""
    images: dict[str, str | None] = {}
    controls = [_control(draft, name, unit, catalogue) for name, unit in _units(found, CONTROLNET)]
    adapters = [_adapter(unit) for _, unit in _units(found, IP_ADAPTER)]
    if controls:
        draft.task, draft.fields["controls"] = Task.CONTROLNET, controls
    if adapters:
        draft.fields["ip_adapters"] = adapters
    for number, control in enumerate(controls):
        images |= {f"controls.{number}.image": None} if "image" in control else {}
    for number, adapter in enumerate(adapters):
        images |= {f"ip_adapters.{number}.images.{index}": None for index in range(len(adapter["images"]))}
        images |= {f"ip_adapters.{number}.mask": None} if "mask" in adapter else {}
    references = _count(found.get(REFERENCES), MAX_REFERENCES)
    if references:
        draft.task, draft.fields["references"] = Task.EDIT, [PLACEHOLDER] * references
        images |= {f"references.{number}": None for number in range(references)}
    if controls or references:  # tasks that may go without them
        given = (("image", "strength"), ("image", "mask_blur"), ("mask_image", "mask_blur"))
        for name in (name for name, sign in given if sign in draft.fields):
            draft.fields[name], images[name] = PLACEHOLDER, None
    draft.images = images


def _units(found: Mapping[str, str], prefix: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Name and values of each unit, in order."""
    names = sorted(name for name in found if name.startswith(prefix) and UNIT.fullmatch(name))
    yield from ((name, dict(_PAIR.findall(found[name]))) for name in names)


def _control(draft: Draft, name: str, unit: Mapping[str, str], catalogue: Catalogue) -> dict[str, Any]:
    controlnet = unit.get("Model", "").partition(" [")[0].strip()
    if unit.get("Module", "none").strip().lower() != "none":
        draft.leave([f"{name}.Module"], _NO_PREPROCESSOR)
    if unit.get("Control Mode", _BALANCED) != _BALANCED:
        draft.leave([f"{name}.Control Mode"], f"only {_BALANCED!r} is supported here")
    control: dict[str, Any] = {"controlnet": controlnet, "image": PLACEHOLDER}
    try:
        if catalogue.controlnet(controlnet).kind == "inpaint":
            del control["image"]  # it reads the job's own
    except NotFound:
        pass  # the whole of it is refused later, by its name
    numbers = {field: read_number(unit[theirs]) for field, theirs in _CONTROL_NUMBERS.items() if theirs in unit}
    return control | {field: number for field, number in numbers.items() if number is not None}


def _adapter(unit: Mapping[str, str]) -> dict[str, Any]:
    scale = read_number(unit.get("Weight"))
    adapter: dict[str, Any] = {
        "name": unit.get("Model", "").strip(),
        "images": [PLACEHOLDER] * (_count(unit.get("Images"), _MAX_IMAGES) or 1),
    }
    adapter |= {} if scale is None else {"scale": scale}
    return adapter | ({"mask": PLACEHOLDER} if "Mask" in unit else {})


def _count(text: str | None, most: int) -> int:
    number = read_number(text)
    return number if isinstance(number, int) and 0 < number <= most else 0
