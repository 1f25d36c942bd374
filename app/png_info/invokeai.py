"""Requests from the metadata of InvokeAI, from version 3 on.

Source: `invokeai/app/invocations/metadata.py` of https://github.com/invoke-ai/InvokeAI (`CoreMetadata`).
"""

from __future__ import annotations

from typing import Any

from app.dialects.a1111.options import model_named
from app.png_info.draft import Draft
from app.png_info.json_texts import is_empty, read_object
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Task

#: Our field -> InvokeAI's name.
_NAMES = {
    "prompt": "positive_prompt",
    "negative_prompt": "negative_prompt",
    "width": "width",
    "height": "height",
    "seed": "seed",
    "num_inference_steps": "steps",
    "guidance_scale": "cfg_scale",
    "guidance_rescale": "cfg_rescale_multiplier",
    "clip_skip": "clip_skip",
    "strength": "strength",
    "scheduler": "scheduler",
    "model": "model",
    "loras": "loras",
}
#: What says nothing that a request could.
_SILENT = frozenset({"app_version", "generation_mode", "rand_device"})
_TASKS = {"img2img": Task.IMG2IMG, "inpaint": Task.INPAINT, "outpaint": Task.INPAINT}
_KARRAS = "_k"


def read_metadata(text: str | None, catalogue: Catalogue) -> Draft | None:
    """The request in a text; None where it is none."""
    found = read_object(text)
    if found is None:
        return None
    draft = Draft("invokeai", names=_NAMES)
    mode = str(found.get("generation_mode", ""))
    draft.task = next((task for end, task in _TASKS.items() if mode.endswith(end)), Task.TXT2IMG)
    told = {name: value for name, value in found.items() if not is_empty(value)}
    draft.leave(told.keys() - {*_NAMES.values()} - _SILENT)
    draft.fields = {field: told[name] for field, name in _NAMES.items() if name in told}
    if draft.task is Task.TXT2IMG:
        draft.fields.pop("strength", None)
    for name in ("clip_skip", "guidance_rescale"):
        if draft.fields.get(name) == 0:
            del draft.fields[name]  # it asks for nothing
    if "model" in draft.fields:
        draft.fields["model"] = model_named(_name_of(draft.fields["model"]), catalogue)
    if "loras" in draft.fields:
        rows = draft.fields.pop("loras")
        if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
            draft.fields["loras"] = [_lora(row) for row in rows]
        else:
            draft.leave(["loras"], "is not a list of objects")
    scheduler = draft.fields.get("scheduler")
    if isinstance(scheduler, str) and scheduler.endswith(_KARRAS):
        draft.fields["scheduler"] = scheduler.removesuffix(_KARRAS) + "_karras"
    return draft


def _name_of(model: Any) -> str:
    """The name of a model, which releases have written in several ways."""
    if not isinstance(model, dict):
        return str(model)
    return str(next((model[name] for name in ("name", "model_name", "key") if model.get(name)), ""))


def _lora(row: dict[str, Any]) -> dict[str, Any]:
    return {"name": _name_of(row.get("model") or row.get("lora") or ""), "scale": row.get("weight", 1)}
