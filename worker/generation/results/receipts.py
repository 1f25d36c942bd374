"""Makes the receipt of a job, and the metadata of its image files from it.

The metadata has no times, no job id and nothing about other jobs, so the same request gives the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from contracts.jobs.receipt import CacheUse, ControlMap, MemoryUse, Receipt, Weights
from contracts.memory.plan import Placement, Plan
from contracts.memory.stages import join_stages
from contracts.requests.parameters import JobParameters
from worker.engine.job import JobInFlight
from worker.generation.results.infotext import infotext
from worker.pool.model import LoadedModel
from worker.runtime.device import describe_device

_LIBRARIES = ("darkroom", "torch", "diffusers", "transformers", "peft", "torchao", "bitsandbytes")
#: Fields of a receipt that differ between two runs of one request.
_PER_RUN = frozenset(
    {
        "embeddings",
        "energy",
        "flops",
        "joined",
        "checked_step",
        "kept_latents",
        "latents_merkle_root",
        "mean_rows",
        "pauses",
        "memory",
        "pixels_sha256",
        "placement",
        "preview_vae",
        "timings",
        "worker",
        "seeds",
    }
)
#: Of an input image; see `contracts.uploads.retention`.
_INPUT_KEY = re.compile(r"inputs/([0-9a-f]{64})\.")
_PER_RUN_PARAMETERS = frozenset({"batchable", "previews", "preview_vae", "keep_latents", "input_images"})


@cache
def library_versions() -> Mapping[str, str]:
    """Return the versions of the libraries that compute the image, without those that are not installed packages.

    Cached: reading them from the packages' files takes as long as a step of a small model.
    """
    versions = {}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


@dataclass(frozen=True)
class StageUse:
    """Use by one stage of a job, noted at its end.

    Attributes:
        model: its weights.
        applied: fields of the receipt about ControlNets and adapters.
        placement: component -> where it was.
        plan: that it was placed by.
        computed: fields of the receipt about device, dtype and kernels.
    """

    model: Weights
    applied: Mapping[str, Any]
    placement: Mapping[str, str]
    plan: Plan | None
    computed: Mapping[str, Any]

    @classmethod
    def of(cls, job: JobInFlight, model: LoadedModel) -> StageUse:
        """Note what the job's present stage uses."""
        controls, prompts = job.stage.controls, job.adapters.image_prompts
        applied = {
            "loras": job.adapters.weights,
            "controlnets": [
                model.controlnets.weights(control.component, control.conditioning_scale) for control in controls
            ],
            **model.vaes.weights(job.stage.vaes),
            "ip_adapters": [prompt.weights for prompt in prompts],
            "textual_inversions": [inversion.weights for inversion in job.adapters.inversions],
            "image_encoders": [prompt.encoder for prompt in prompts],
        }
        computed = {
            "device": describe_device(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "kernels": dict(model.kernels.used),
        }
        placement = model.locations([control.component for control in controls], job.stage.vaes)
        return cls(model.weights, applied, placement, model.placement.plan, computed)


def make_receipt(
    job: JobInFlight,
    stages: Sequence[StageUse],
    *,
    upscaler: Weights | None,
    maps: Sequence[ControlMap],
    embeddings: CacheUse,
    budget_bytes: int,
    predicted_calls: int,
    timings: Mapping[str, float],
    worker: str,
) -> Receipt:
    """Return the receipt of a job whose images have been generated; the seconds of writing are added later.

    Args:
        upscaler: that enlarged images between two passes.
        maps: control images that the job has made itself.
    """
    parameters, usage, first = job.generation, job.usage, stages[0]
    plans = [stage.plan for stage in stages if stage.plan is not None]
    plan = join_stages(plans, parameters.later_stage) if plans else None
    return Receipt(
        parameters=parameters,
        seeds=parameters.seeds,
        model=first.model,
        refiner=stages[-1].model if parameters.refiner is not None else None,
        cascade=stages[-1].model if parameters.cascade is not None else None,
        upscaler=upscaler,
        control_maps=list(maps),
        **first.applied,
        mean_rows=usage.mean_rows,
        pauses=usage.pauses,
        joined=usage.joined,
        placement={
            f"{f'{parameters.later_stage}:' if number else ''}{name}": place
            for number, stage in enumerate(stages)
            for name, place in stage.placement.items()
        },
        memory=MemoryUse(
            plan="" if plan is None else plan.name,
            budget_bytes=budget_bytes,
            planned_bytes=0 if plan is None else plan.peak_bytes,
            peak_bytes=usage.peak_bytes,
            ran_out=list(usage.failed_plans),
        ),
        flops=None if job.flops is None else round(job.flops),
        predicted_calls=predicted_calls,
        deviations=_deviations(plan, parameters),
        embeddings=embeddings,
        **first.computed,
        versions=dict(library_versions()),
        timings=dict(timings),
        worker=worker,
    )


def _deviations(plan: Plan | None, job: JobParameters) -> list[str]:
    """Return how the plan changes the image, compared with a device on which everything fits."""
    if plan is None:
        return []
    deviations = [f"{part.name} skipped" for part in plan.components if part.placement is Placement.SKIPPED]
    if plan.fp8:
        deviations.append("denoiser in fp8")
    if plan.tile_side is not None and max(job.stages[-1].width, job.stages[-1].height) > plan.tile_side:
        deviations.append(f"VAE in tiles of {plan.tile_side} pixels")
    return deviations


def file_metadata(receipt: Receipt, seed: int | None, layer: int | None = None) -> Mapping[str, str]:
    """Return the metadata of one image's file: `darkroom` as JSON; with a seed, `parameters` as A1111's line.

    Args:
        layer: that the file has; None where images have no layers.
    """
    reproducible = receipt.model_dump(mode="json", exclude={*_PER_RUN})
    for lora in reproducible["parameters"].get("loras", ()):
        del lora["key"], lora["values"]  # the same file may be stored elsewhere later
    for inversion in reproducible["parameters"].get("textual_inversions", ()):
        del inversion["key"]
    for control in reproducible["parameters"].get("controls", ()):
        for name in ("key", "values"):
            control.pop(name, None)
    for holder, name in _inputs_of(reproducible["parameters"]):
        holder[name] = _content_of(holder[name])
    for adapter in reproducible["parameters"].get("ip_adapters", ()):
        for name in ("key", "values"):
            adapter.pop(name, None)
        adapter["images"] = [_content_of(key) for key in adapter["images"]]
    reproducible["parameters"] = {
        name: value for name, value in reproducible["parameters"].items() if name not in _PER_RUN_PARAMETERS
    }
    reproducible["parameters"].pop("images", None)  # of a training: they are not in the image, nor are captions
    if seed is None:
        return {"darkroom": json.dumps(reproducible, sort_keys=True)}
    own = {"seed": seed} if layer is None else {"seed": seed, "layer": layer}
    return {
        "darkroom": json.dumps({**own, **reproducible}, sort_keys=True),
        "parameters": infotext(receipt, seed),
    }


def _inputs_of(parameters: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield where dumped parameters name an input image: the mapping, and the key in it."""
    for name in ("image", "mask_image", "control_image"):
        if parameters.get(name) is not None:
            yield parameters, name
    for adapter in parameters.get("ip_adapters", ()):
        if adapter["mask"] is not None:
            yield adapter, "mask"
    for control in parameters.get("controls", ()):
        for name in ("image", "source"):
            if control.get(name) is not None:
                yield control, name
    for reference in parameters.get("references", ()):
        yield reference, "image"


def _content_of(key: str) -> str | None:
    """The content hash in an input's storage key. The key itself is an internal name, and differs between runs."""
    found = _INPUT_KEY.match(key)
    return None if found is None else f"sha256:{found[1]}"
