"""The receipt of a job, and the reproducible part of it that goes into the image file.

The file's part holds no time, no job id and no batch, so the same request gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from contracts.memory.plan import Placement, Plan
from contracts.queue.records import CacheUse, MemoryUse, Receipt
from contracts.requests.parameters import JobParameters
from worker.pool.model import LoadedModel
from worker.runtime.device import describe_device

_LIBRARIES = ("darkroom", "torch", "diffusers", "transformers", "peft")
#: Fields of a receipt that differ between two runs of one request.
_PER_RUN = frozenset(
    {"batch_images", "batch_jobs", "embeddings", "memory", "placement", "timings", "worker", "seeds"}
)
_PER_RUN_PARAMETERS = frozenset({"batchable", "previews"})


@cache
def library_versions() -> Mapping[str, str]:
    """Versions of what computes the image; a library that is run from its folder has none.

    Remembered: reading them from the packages' files costs as much as a step of a small model.
    """
    found = {}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def compose(
    batch: Sequence[JobParameters],
    model: LoadedModel,
    *,
    embeddings: CacheUse,
    memory: MemoryUse,
    predicted_calls: int,
    worker: str,
) -> Receipt:
    """The receipt of a batch's first job; each has parameters, seeds, adapters and timings of its own."""
    shared = batch[0]
    return Receipt(
        parameters=shared,
        seeds=shared.seeds,
        model=model.weights,
        controlnets=[
            model.controlnet_weights(control.controlnet, control.conditioning_scale) for control in shared.controls
        ],
        batch_images=sum(job.num_images for job in batch),
        batch_jobs=len(batch),
        placement=model.locations([control.controlnet for control in shared.controls]),
        memory=memory,
        predicted_calls=predicted_calls,
        departures=_departures(model.placement.plan, shared),
        embeddings=embeddings,
        device=describe_device(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        kernels=dict(model.kernels.used),
        versions=dict(library_versions()),
        worker=worker,
    )


def _departures(plan: Plan | None, job: JobParameters) -> list[str]:
    """What makes this image another than the same request gives where everything fits."""
    if plan is None:
        return []
    found = [f"{part.name} skipped" for part in plan.components if part.placement is Placement.SKIPPED]
    if plan.fp8:
        found.append("denoiser in fp8")
    if plan.tile_side is not None and max(job.width, job.height) > plan.tile_side:
        found.append(f"VAE in tiles of {plan.tile_side} pixels")
    return found


def texts(receipt: Receipt, seed: int) -> Mapping[str, str]:
    """What an image's file says of itself: `darkroom` as JSON, `parameters` as A1111's users read it."""
    lasting = receipt.model_dump(mode="json", exclude={*_PER_RUN})
    for lora in lasting["parameters"]["loras"]:
        del lora["key"], lora["values"]  # where the same file lies may change
    lasting["parameters"] = {
        name: value for name, value in lasting["parameters"].items() if name not in _PER_RUN_PARAMETERS
    }
    return {
        "darkroom": json.dumps({"seed": seed, **lasting}, sort_keys=True),
        "parameters": _infotext(receipt, seed),
    }


def _infotext(receipt: Receipt, seed: int) -> str:
    job = receipt.parameters
    lines = [job.prompt + "".join(f" <lora:{lora.name}:{lora.scale:g}>" for lora in job.loras)]
    if job.negative_prompt is not None:
        lines.append(f"Negative prompt: {job.negative_prompt}")
    facts: dict[str, object] = {
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
        "Version": f"darkroom {receipt.versions.get('darkroom', '')}",
    }
    lines.append(", ".join(f"{name}: {value}" for name, value in facts.items() if value is not None))
    return "\n".join(lines)
