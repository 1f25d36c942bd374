"""The line of generation parameters that AUTOMATIC1111's web UI writes into its files, for a job of this service.

Sent back with `prompt_syntax: a1111`, it makes the same image. Knows no file formats.
"""

from __future__ import annotations

import json

from contracts.jobs.receipt import Receipt
from contracts.prompts.syntax import escape
from contracts.prompts.tokens import WINDOW_TOKENS
from contracts.requests.parameters import JobParameters

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


def infotext(receipt: Receipt, seed: int) -> str:
    """Return the prompt with its LoRAs, the negative prompt, and a line of `Name: value` pairs."""
    job = receipt.parameters
    loras = "".join(f" <lora:{lora.name}:{_number(lora.scale)}>" for lora in job.loras)
    lines = [f"{_prompt(job, 'prompt')}{loras}"]
    if job.negative_prompt is not None:
        lines.append(f"Negative prompt: {_prompt(job, 'negative_prompt')}")
    fields: dict[str, object] = {
        "Steps": job.num_inference_steps,
        "Sampler": job.scheduler,
        "CFG scale": job.guidance_scale,
        "Seed": seed,
        "Size": f"{job.width}x{job.height}",
        "Model hash": receipt.model.sha256[:10],
        "Model": job.model,
        "Denoising strength": job.strength,
        "Mask blur": job.mask_blur,
        "Clip skip": job.clip_skip,
        **{_title(name): _value(getattr(job, name)) for name in _MORE_FIELDS},
        "Long prompt": job.long_prompt if _is_long(receipt) else None,
        "Speed": None if job.speed == "exact" else job.speed,
        **{_title(name): _quoted(_prompt(job, name)) for name in ("prompt_2", "prompt_3")},
        "Version": f"darkroom {receipt.versions.get('darkroom', '')}",
    }
    lines.append(", ".join(f"{name}: {value}" for name, value in fields.items() if value is not None))
    return "\n".join(lines)


def _prompt(job: JobParameters, name: str) -> str | None:
    """A prompt in the web UI's syntax; a plain one with what would mean something there escaped."""
    text: str | None = getattr(job, name)
    return escape(text) if text is not None and job.prompt_syntax == "plain" else text


def _is_long(receipt: Receipt) -> bool:
    """Whether `long_prompt` matters."""
    uses = (*receipt.prompt_tokens.values(), *receipt.negative_prompt_tokens.values())
    has_breaks = any(len(chunks) > 1 for chunks in receipt.parameters.prompt_chunks.values())
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
