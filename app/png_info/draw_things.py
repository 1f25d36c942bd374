"""Requests from what Draw Things writes: JSON in the user comment of XMP, or of EXIF."""

from __future__ import annotations

import re
from typing import Any

from app.dialects.a1111.options import model_named
from app.dialects.a1111.samplers import UnknownSampler, scheduler_for
from app.png_info.draft import Draft
from app.png_info.json_texts import is_empty, read_object
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Task
from contracts.errors import NotFound

#: Our field -> its name there.
_NAMES = {
    "prompt": "c",
    "negative_prompt": "uc",
    "seed": "seed",
    "num_inference_steps": "steps",
    "guidance_scale": "scale",
    "strength": "strength",
    "model": "model",
    "scheduler": "sampler",
    "loras": "lora",
    "width": "size",
    "height": "size",
}
_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})", re.ASCII)


def read_comment(text: str | None, catalogue: Catalogue) -> Draft | None:
    """The request in a comment; None where it is none."""
    found = read_object(text)
    if found is None or "c" not in found:
        return None
    draft = Draft("draw_things", names=_NAMES)
    told = {name: value for name, value in found.items() if not is_empty(value)}
    draft.leave(told.keys() - {*_NAMES.values()})
    special = ("loras", "width", "height", "scheduler", "model")
    draft.fields = {field: told[name] for field, name in _NAMES.items() if name in told and field not in special}
    size = _SIZE.fullmatch(str(told.get("size", "")))
    if size is not None:
        draft.fields |= {"width": int(size[1]), "height": int(size[2])}
    elif "size" in told:
        draft.leave(["size"], "is not a size such as 512x768")
    if draft.fields.get("strength") == 1:
        del draft.fields["strength"]  # it starts from nothing
    elif "strength" in draft.fields:
        draft.task = Task.IMG2IMG
    rows = told.get("lora", [])
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        draft.fields["loras"] = [_lora(row) for row in rows]
    else:
        draft.leave(["lora"], "is not a list of objects")
    if "model" in told:
        draft.fields["model"] = model_named(str(told["model"]), catalogue)
    _choose_scheduler(draft, told, catalogue)
    return draft


def _lora(row: dict[str, Any]) -> dict[str, Any]:
    name = str(row.get("model", "")).removesuffix(".ckpt").removesuffix(".safetensors")
    return {"name": name, "scale": row.get("weight", 1)}


def _choose_scheduler(draft: Draft, told: dict[str, Any], catalogue: Catalogue) -> None:
    try:
        model = catalogue.model(draft.fields.get("model", catalogue.default_model))
    except NotFound:
        model = catalogue.model(catalogue.default_model)
    try:
        scheduler = scheduler_for(str(told.get("sampler", "")), None, model)
    except UnknownSampler as error:
        draft.leave(["sampler"], error.message)
    else:
        draft.fields |= {} if scheduler is None else {"scheduler": scheduler}
