"""Requests from the text of parameters that AUTOMATIC1111's web UI writes, and Forge and others like it."""

from __future__ import annotations

from typing import Any

from app.dialects.a1111.hires import upscaler_named
from app.dialects.a1111.infotext import has_negative_prompt, read_infotext
from app.dialects.a1111.options import model_named
from app.dialects.a1111.samplers import UnknownSampler, scheduler_for
from app.png_info.draft import Draft
from app.png_info.json_texts import read_number
from app.png_info.web_ui_images import CONTROLNET, IP_ADAPTER, REFERENCES, UNIT, read_images
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Task
from contracts.catalogue.rows.networks import PLAIN_UPSCALERS
from contracts.errors import NotFound

_PROMPT, _NEGATIVE = "Prompt", "Negative prompt"
#: Our field -> the web UI's name; further ones are those that workers here write, of fields that it does not have.
_NUMBERS = {
    "num_inference_steps": "Steps",
    "guidance_scale": "CFG scale",
    "seed": "Seed",
    "width": "Size-1",
    "height": "Size-2",
    "clip_skip": "Clip skip",
    "strength": "Denoising strength",
    "mask_blur": "Mask blur",
    "num_images": "Batch size",
    "layers": "Layers",
    "true_cfg_scale": "True cfg scale",
    "guidance_rescale": "Guidance rescale",
    "max_sequence_length": "Max sequence length",
    "padding_mask_crop": "Padding mask crop",
}
_TEXTS = {
    "long_prompt": "Long prompt",
    "speed": "Speed",
    "prompt_2": "Prompt 2",
    "prompt_3": "Prompt 3",
    "fit": "Fit",
}
_PAIRS = {
    "original_size": "Original size",
    "crops_coords_top_left": "Crops coords top left",
    "target_size": "Target size",
}
#: Field of a refiner -> its name here.
_REFINER = {
    "switch_at": "Refiner switch at",
    "steps": "Refiner steps",
    "aesthetic_score": "Refiner aesthetic score",
    "negative_aesthetic_score": "Refiner negative aesthetic score",
}
#: Fields of a second pass, which has a strength where its images' own has none.
_HIRES, _HIRES_UPSCALER, _HIRES_STEPS = "Hires upscale", "Hires upscaler", "Hires steps"
_NAMES = {
    "prompt": _PROMPT,
    "negative_prompt": _NEGATIVE,
    "model": "Model",
    "scheduler": "Sampler",
    "references": REFERENCES,
    "controls": f"{CONTROLNET}0",
    "ip_adapters": f"{IP_ADAPTER}0",
    "refiner": "Refiner",
    "hires": _HIRES,
    **_NUMBERS,
    **_TEXTS,
    **_PAIRS,
}
#: What says nothing that a request could: names of files again, and the program.
_SILENT = frozenset(
    {
        "Model hash",
        "Version",
        "VAE hash",
        "Lora hashes",
        "TI hashes",
        "Hashes",
        "User",
        "Schedule type",
        "Batch pos",
    }
)
#: Forge's name for the guidance of FLUX, whose own `CFG scale` is 1.
_DISTILLED = "Distilled CFG Scale"


def read_parameters(text: str | None, catalogue: Catalogue, *, surely: bool) -> Draft | None:
    """The request in a text; None where it is none.

    Args:
        surely: whether its place says that it has parameters; else it must have steps.
    """
    found = read_infotext(text) if text else {}
    if text is None or not found or not (surely or "Steps" in found):
        return None
    if _DISTILLED in found and read_number(found.get("CFG scale", "1")) == 1:
        found["CFG scale"] = found.pop(_DISTILLED)
    draft = Draft("a1111", names=_NAMES)
    units = {name for name in found if UNIT.fullmatch(name)}
    pairs = {field: [found.pop(f"{name}-{n}", None) for n in (1, 2)] for field, name in _PAIRS.items()}
    draft.fields = {field: [int(str(side)) for side in pair] for field, pair in pairs.items() if None not in pair}
    draft.leave(
        found.keys() - {*_NAMES.values(), *_REFINER.values(), _HIRES_UPSCALER, _HIRES_STEPS} - _SILENT - units
    )
    draft.fields |= {field: found[name] for field, name in _TEXTS.items() if name in found}
    for field, name in _NUMBERS.items():
        if name in found:
            number = read_number(found[name])
            if number is None:
                draft.leave([name], "is not a number")
            else:
                draft.fields[field] = number
    draft.fields |= {"prompt": found[_PROMPT], "prompt_syntax": "a1111"}
    if has_negative_prompt(text):
        draft.fields["negative_prompt"] = found[_NEGATIVE]
    _count_from_zero(draft)
    _read_batch(draft, found)
    _read_hires(draft, found, catalogue)
    _choose_task(draft)
    _choose_model(draft, found, catalogue)
    _read_refiner(draft, found, catalogue)
    read_images(draft, found, catalogue)
    return draft


def _count_from_zero(draft: Draft) -> None:
    """The web UI's clip skip is the last layer that is read, counted from the end: 1 skips none."""
    skip = draft.fields.get("clip_skip")
    if skip == 1:
        del draft.fields["clip_skip"]
    elif skip is not None:
        draft.fields["clip_skip"] -= 1


def _read_batch(draft: Draft, found: dict[str, Any]) -> None:
    """The file of one image of several has that image's seed; the request has the first one's, and makes all."""
    count, seed = draft.fields.get("num_images"), draft.fields.get("seed")
    position = read_number(found.get("Batch pos"))
    if not isinstance(count, int):
        return
    if isinstance(position, int) and isinstance(seed, int) and 0 <= position < count and position <= seed:
        draft.fields["seed"], draft.n = seed - position, position
    else:
        del draft.fields["num_images"]
        draft.leave(["Batch size"], "the file does not say which of the images it is")


def _read_hires(draft: Draft, found: dict[str, Any], catalogue: Catalogue) -> None:
    """The second pass, whose strength is the only one; without its scale or its upscaler it is left out."""
    if not any(name.startswith("Hires ") for name in found):
        return
    scale, steps = read_number(found.get(_HIRES)), read_number(found.get(_HIRES_STEPS))
    upscaler, strength = upscaler_named(found.get(_HIRES_UPSCALER, "")), draft.fields.pop("strength", None)
    if scale is not None and upscaler in {*PLAIN_UPSCALERS, *(row.id for row in catalogue.upscalers)}:
        given = {"scale": scale, "upscaler": upscaler, "strength": strength, "steps": steps}
        draft.fields["hires"] = {name: value for name, value in given.items() if value is not None}
        return
    names = (_HIRES, _HIRES_UPSCALER, _HIRES_STEPS, "Denoising strength")
    draft.leave([name for name in names if name in found], "of a second pass that cannot be made here")


def _choose_task(draft: Draft) -> None:
    if "mask_blur" in draft.fields:
        draft.task = Task.INPAINT
    elif "strength" in draft.fields:
        draft.task = Task.IMG2IMG


def _read_refiner(draft: Draft, found: dict[str, Any], catalogue: Catalogue) -> None:
    if not found.get("Refiner"):
        return
    numbers = {field: read_number(found.get(name)) for field, name in _REFINER.items()}
    given = {field: number for field, number in numbers.items() if number is not None}
    draft.fields["refiner"] = {"model": model_named(found["Refiner"], catalogue), **given}


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
