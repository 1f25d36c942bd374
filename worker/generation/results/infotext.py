"""The line of generation parameters that AUTOMATIC1111's web UI writes into its files, for a job of this service.

Sent back with `prompt_syntax: a1111`, it makes the same image. Knows no file formats.
"""

from __future__ import annotations

import json
import re

from contracts.jobs.receipt import Receipt
from contracts.prompts.syntax import escape
from contracts.prompts.tokens import WINDOW_TOKENS
from contracts.requests.any_parameters import require_diffusion
from contracts.requests.parameters import JobParameters
from contracts.requests.strict_model import StrictModel

#: Fields that the web UI has no names for; those that are None are left out.
_MORE_FIELDS = (
    "true_cfg_scale",
    "guidance_rescale",
    "max_sequence_length",
    "original_size",
    "crops_coords_top_left",
    "target_size",
    "padding_mask_crop",
)
#: A line of a prompt that begins so would be read as the negative prompt.
_LIKE_NEGATIVE = re.compile(r"^(\s*)Negative(?= prompt:)", re.MULTILINE)


def infotext(receipt: Receipt, seed: int) -> str:
    """Return the prompt with its LoRAs, the negative prompt, and a line of `Name: value` pairs."""
    job = require_diffusion(receipt.parameters)
    loras = "".join(f" <lora:{lora.name}:{_number(lora.scale)}>" for lora in job.loras)
    lines = [f"{_prompt(job, 'prompt') or ''}{loras}"]
    if job.negative_prompt is not None:
        lines.append(f"Negative prompt: {_prompt(job, 'negative_prompt')}")
    fields: dict[str, object] = {
        "Steps": job.num_inference_steps,
        "Class label": _quoted(job.class_label) if isinstance(job.class_label, str) else job.class_label,
        "Sampler": job.scheduler,
        "CFG scale": job.guidance_scale,
        "Seed": seed,
        "Size": f"{job.width}x{job.height}",
        "Model hash": receipt.model.sha256[:10],
        "Model": job.model,
        "Denoising strength": job.strength if job.hires is None else _number(job.hires.strength),
        "Mask blur": job.mask_blur,
        # The web UI's number is of the last layer that is read: 1 is the last one, so that none is skipped.
        "Clip skip": None if job.clip_skip is None else job.clip_skip + 1,
        "Batch size": job.num_images if job.num_images > 1 else None,
        "Batch pos": seed - job.seed if job.num_images > 1 else None,
        **{_title(name): _value(getattr(job, name)) for name in _MORE_FIELDS},
        "Guidance": _options(job.guidance),
        "Dynamic thresholding": _options(job.dynamic_thresholding),
        "Long prompt": job.long_prompt if _is_long(receipt, job) else None,
        **_refiner(job),
        **_hires(job),
        "Cascade": _options(job.cascade),
        "Speed": None if job.speed == "exact" else job.speed,
        **{_title(name): _quoted(_prompt(job, name)) for name in ("prompt_2", "prompt_3")},
        **_images(job),
        "Version": f"darkroom {receipt.versions.get('darkroom', '')}",
    }
    lines.append(", ".join(f"{name}: {value}" for name, value in fields.items() if value is not None))
    return "\n".join(lines)


def _images(job: JobParameters) -> dict[str, object]:
    """What is used beside the prompt: names and numbers. The images themselves are not in the file."""
    fields: dict[str, object] = {
        "References": len(job.references) or None,
        "Layers": job.layers,
        "Fit": None if job.fit == "cover" else job.fit,
    }
    for number, control in enumerate(job.controls):
        fields[f"ControlNet {number}"] = _quoted(
            f"Module: none, Model: {control.controlnet}, Weight: {_number(control.conditioning_scale)}, "
            f"Guidance Start: {_number(control.guidance_start)}, Guidance End: {_number(control.guidance_end)}"
        )
    for number, adapter in enumerate(job.ip_adapters):
        mask = "" if adapter.mask is None else ", Mask: 1"
        fields[f"IP-Adapter {number}"] = _quoted(
            f"Model: {adapter.name}, Weight: {_number(adapter.scale)}, Images: {len(adapter.images)}{mask}"
        )
    return fields


def _options(chosen: StrictModel | None) -> str | None:
    """What was set of a field that is an object, such as the kind of guidance and its options."""
    if chosen is None:
        return None
    given = chosen.model_dump(exclude_none=True)
    texts = {
        name: "+".join(map(str, value)) if isinstance(value, tuple) else value for name, value in given.items()
    }
    return _quoted(", ".join(f"{_title(name)}: {value}" for name, value in texts.items()))


def _refiner(job: JobParameters) -> dict[str, object]:
    """The web UI's two fields of a refiner, and what else was set of it."""
    refiner = job.refiner
    if refiner is None:
        return {}
    set_fields = refiner.model_dump(exclude_defaults=True, exclude={"model", "switch_at"})
    others = {f"Refiner {name.replace('_', ' ')}": _number(value) for name, value in set_fields.items()}
    return {"Refiner": refiner.model, "Refiner switch at": _number(refiner.switch_at), **others}


def _hires(job: JobParameters) -> dict[str, object]:
    """The web UI's fields of a second pass."""
    hires = job.hires
    if hires is None:
        return {}
    return {"Hires upscale": _number(hires.scale), "Hires steps": hires.steps, "Hires upscaler": hires.upscaler}


def _prompt(job: JobParameters, name: str) -> str | None:
    """A prompt in the web UI's syntax; a plain one with what would mean something there escaped."""
    text: str | None = getattr(job, name)
    if text is None:
        return None
    text = escape(text) if job.prompt_syntax == "plain" else text
    return _LIKE_NEGATIVE.sub(r"\1(Negative:1)", text)


def _is_long(receipt: Receipt, job: JobParameters) -> bool:
    """Whether `long_prompt` matters."""
    uses = (*receipt.prompt_tokens.values(), *receipt.negative_prompt_tokens.values())
    has_breaks = any(len(chunks) > 1 for chunks in job.prompt_chunks.values())
    return has_breaks or any(use.given > min(use.used, WINDOW_TOKENS) for use in uses)


def _number(value: float) -> str:
    """The shortest text that reads as this number."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _title(field: str) -> str:
    """A field's name as the web UI writes names: `Max sequence length`."""
    return field.replace("_", " ").capitalize()


def _value(value: object) -> object:
    """A pair is written as a size is."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else value


def _quoted(text: str | None) -> str | None:
    """Quote a text, so that it may hold commas and colons."""
    return None if text is None else json.dumps(text, ensure_ascii=False)
