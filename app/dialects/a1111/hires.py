"""The web UI's second pass in high resolution, as our `hires`, which is checked elsewhere. Translates only.

Source: `StableDiffusionProcessingTxt2Img` in `modules/processing.py` of
https://github.com/AUTOMATIC1111/stable-diffusion-webui.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from app.dialects.a1111.schema import A1111Request
from contracts.catalogue.rows.networks import LANCZOS, LATENT
from contracts.errors import FieldProblem

#: The web UI's names of what enlarges without a network, the usual one first; `None` is scaled as Lanczos there.
LATENT_NAME, LANCZOS_NAME, NONE_NAME = "Latent", "Lanczos", "None"
_UPSCALERS = {"": LATENT, "latent": LATENT, "lanczos": LANCZOS, "none": LANCZOS}
_STRENGTH = 0.75
#: Our fields -> the web UI's names.
HIRES_NAMES: Mapping[str, str] = {
    "hires": "enable_hr",
    "hires.scale": "hr_scale",
    "hires.upscaler": "hr_upscaler",
    "hires.strength": "denoising_strength",
    "hires.steps": "hr_second_pass_steps",
}
#: Field that can only say what the first pass has -> its value for that, and the first pass's field.
_SAME = {
    "hr_checkpoint_name": ("Use same checkpoint", ""),
    "hr_sampler_name": ("Use same sampler", "sampler"),
    "hr_scheduler": ("Use same scheduler", "scheduler"),
    "hr_prompt": ("", "prompt"),
    "hr_negative_prompt": ("", "negative_prompt"),
}
_SIZES = ("hr_resize_x", "hr_resize_y", "firstphase_width", "firstphase_height")


def upscaler_named(name: str) -> str:
    """Return our name of what the web UI enlarges with: an upscaler's id is the same."""
    return _UPSCALERS.get(name.strip().lower(), name)


def hires_fields(request: A1111Request) -> dict[str, Any]:
    """Return `hires` of a request that enables it; our checks refuse what cannot act."""
    strength = _STRENGTH if request.denoising_strength is None else request.denoising_strength
    fields = {"scale": request.hr_scale, "upscaler": upscaler_named(request.hr_upscaler), "strength": strength}
    return fields | ({"steps": request.hr_second_pass_steps} if request.hr_second_pass_steps else {})


def hires_problems(request: A1111Request) -> Iterator[FieldProblem]:
    """Yield fields of a second pass that ask for what ours cannot do."""
    if not request.enable_hr:
        return
    for field in _SIZES:
        if getattr(request, field):
            yield FieldProblem(field, "must be 0 here: both sizes follow from width, height and hr_scale", [0])
    for field, (same, first) in _SAME.items():
        allowed = dict.fromkeys(("", same, getattr(request, first) if first else ""))
        if getattr(request, field) not in allowed:
            yield FieldProblem(field, "must be as in the first pass here; leave it empty", list(allowed))
