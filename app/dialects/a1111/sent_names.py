"""The names by which the web UI's clients sent our fields: in errors about them, and in messages about others."""

from __future__ import annotations

import re

from app.dialects.a1111.controlnet import CONTROLNET
from app.dialects.a1111.hires import HIRES_NAMES
from app.dialects.a1111.options import CLIP_SKIP, MODEL
from app.dialects.a1111.preprocessors import sent_option
from app.dialects.a1111.schema import A1111Request
from contracts.catalogue.schedulers import SCHEDULERS

OVERRIDE = "override_settings"
UNITS = f"alwayson_scripts.{CONTROLNET}.args"
#: Our fields that the web UI has other names for.
NAMES = {
    "num_inference_steps": "steps",
    "guidance_scale": "cfg_scale",
    "model": f"{OVERRIDE}.{MODEL}",
    "clip_skip": f"{OVERRIDE}.{CLIP_SKIP}",
    "image": "init_images.0",
    "mask_image": "mask",
    "strength": "denoising_strength",
    "padding_mask_crop": "inpaint_full_res",
    "fit": "resize_mode",
    "controls": UNITS,
    "refiner": "refiner_checkpoint",
    "refiner.model": "refiner_checkpoint",
    "refiner.switch_at": "refiner_switch_at",
    **HIRES_NAMES,
    "metadata": "force_task_id",
}
#: The same, as messages about other fields mention them.
WORDS = {name: path.rpartition(".")[2] for name, path in NAMES.items()} | {
    "num_images": "batch_size",
    "conditioning_scale": "weight",
    "mask_image": "mask",
}
UNIT_NAMES = {
    "controlnet": "model",
    "preprocess": "module",
    "conditioning_scale": "weight",
    "mode": "union_control_type",
}
_CONTROL = re.compile(r"controls\.([0-9]+)\.(\w+)(?:\.(\w+))?")


def sent_name(request: A1111Request, name: str) -> str:
    """The path by which the client sent one of our fields."""
    if name == "num_images":
        return "batch_size" if request.batch_size > 1 else "n_iter"
    if name == "scheduler" and request.sampler in SCHEDULERS:
        return "sampler_name"
    control = _CONTROL.fullmatch(name)
    if control is None:
        return NAMES.get(name, name)
    units = request.alwayson_scripts.units
    index = int(control[1])
    number = units[index][0] if index < len(units) else control[1]
    if control[3] is not None and index < len(units):
        return f"{UNITS}.{number}.{sent_option(units[index][1].module, control[3])}"
    return f"{UNITS}.{number}.{UNIT_NAMES.get(control[2], control[2])}"
