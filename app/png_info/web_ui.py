"""Requests from the text of parameters that AUTOMATIC1111's web UI writes, and Forge and others like it."""

from __future__ import annotations

from typing import Any

from app.dialects.a1111.infotext import read_infotext
from app.dialects.a1111.options import model_named
from app.dialects.a1111.samplers import UnknownSampler, scheduler_for
from app.png_info.draft import Draft
from app.png_info.json_texts import read_number
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Task
from contracts.errors import NotFound

_PROMPT, _NEGATIVE = "Prompt", "Negative prompt"
#: Our field -> the web UI's name.
_NAMES = {
    "prompt": _PROMPT,
    "negative_prompt": _NEGATIVE,
    "model": "Model",
    "scheduler": "Sampler",
    "num_inference_steps": "Steps",
    "guidance_scale": "CFG scale",
    "seed": "Seed",
    "width": "Size-1",
    "height": "Size-2",
    "clip_skip": "Clip skip",
    "strength": "Denoising strength",
    "mask_blur": "Mask blur",
}
_TEXTS = frozenset({"prompt", "negative_prompt", "model", "scheduler"})
#: What says nothing that a request could: names of files again, and the program.
_SILENT = frozenset(
    {"Model hash", "Version", "VAE hash", "Lora hashes", "TI hashes", "Hashes", "User", "Schedule type"}
)
_OWN_VERSION = "darkroom"
#: Forge's name for the guidance of FLUX, whose own `CFG scale` is 1.
_DISTILLED = "Distilled CFG Scale"


def read_parameters(text: str | None, catalogue: Catalogue, *, surely: bool) -> Draft | None:
    """The request in a text; None where it is none.

    Args:
        surely: whether its place says that it has parameters; else it must have steps.
    """
    found = read_infotext(text) if text else {}
    if not found or not (surely or "Steps" in found):
        return None
    if _DISTILLED in found and read_number(found.get("CFG scale", "1")) == 1:
        found["CFG scale"] = found.pop(_DISTILLED)
    draft = Draft("a1111", names=_NAMES)
    draft.leave(found.keys() - {*_NAMES.values()} - _SILENT)
    for field, name in _NAMES.items():
        if field not in _TEXTS and name in found:
            number = read_number(found[name])
            if number is None:
                draft.leave([name], "is not a number")
            else:
                draft.fields[field] = number
    draft.fields |= {"prompt": found[_PROMPT], "prompt_syntax": "a1111"}
    if found[_NEGATIVE]:
        draft.fields["negative_prompt"] = found[_NEGATIVE]
    _choose_task(draft, found)
    _choose_model(draft, found, catalogue)
    if not found.get("Version", "").startswith(_OWN_VERSION) and "clip_skip" in draft.fields:
        draft.fields["clip_skip"] -= 1  # the web UI counts from 1
    return draft


def _choose_task(draft: Draft, found: dict[str, Any]) -> None:
    if any(name.startswith("Hires ") for name in found):
        draft.fields.pop("strength", None)
        draft.leave(["Denoising strength"] if "Denoising strength" in found else [], "of a second pass")
    if "mask_blur" in draft.fields:
        draft.task = Task.INPAINT
    elif "strength" in draft.fields:
        draft.task = Task.IMG2IMG


def _choose_model(draft: Draft, found: dict[str, Any], catalogue: Catalogue) -> None:
    title = found.get("Model")
    if title:
        draft.fields["model"] = model_named(title, catalogue)
    try:
        model = catalogue.model(draft.fields.get("model", catalogue.default_model))
    except NotFound:
        model = catalogue.model(catalogue.default_model)
    try:
        scheduler = scheduler_for(found.get("Sampler"), found.get("Schedule type"), model)
    except UnknownSampler as error:
        draft.leave(["Sampler" if error.field == "sampler_name" else "Schedule type"], error.message)
    else:
        draft.fields |= {} if scheduler is None else {"scheduler": scheduler}
