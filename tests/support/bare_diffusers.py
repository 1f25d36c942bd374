"""Images by diffusers alone, as its documentation has people make them. Knows nothing of Darkroom.

What these scripts paint, Darkroom's images equal bit for bit (`tests/worker/families/test_bare_diffusers.py`).
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers
import torch
from PIL import Image

#: Public name of a scheduler -> its class in diffusers, and what is changed of the checkpoint's configuration.
SCHEDULERS: Mapping[str, tuple[str, dict[str, Any]]] = MappingProxyType(
    {
        "euler": ("EulerDiscreteScheduler", {}),
        "euler_a": ("EulerAncestralDiscreteScheduler", {}),
        "pndm": ("PNDMScheduler", {}),
        "euler_trailing": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
        "ddim": ("DDIMScheduler", {}),
        "tcd": ("TCDScheduler", {}),
        "lcm": ("LCMScheduler", {}),
        "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
        "flow_euler": ("FlowMatchEulerDiscreteScheduler", {}),
        "flow_dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
        "ddpm": ("DDPMScheduler", {}),
        "ddpm_dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
        "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    }
)


@cache
def _load(folder: Path) -> Any:
    return diffusers.DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)


def make_pipeline(folder: Path, pipeline: str, **parts: Any) -> Any:
    """Make a pipeline on a checkpoint's weights, which are read once for all of them.

    What a caller sets on the pipeline, its denoiser or its VAE is the caller's own; all else must stay as it is.

    Args:
        folder: checkpoint in diffusers layout.
        pipeline: class in diffusers.
        parts: what the checkpoint does not have.
    """
    loaded, pipeline_class = _load(folder), getattr(diffusers, pipeline)
    known = inspect.signature(pipeline_class.__init__).parameters
    own = {name: _copy(part) for name, part in loaded.components.items() if name in known}
    settings = {name: value for name, value in loaded.config.items() if name in known and name not in own}
    made = pipeline_class(**settings | own | parts)
    made.set_progress_bar_config(disable=True)
    return made


def _copy(part: Any) -> Any:
    """A part that shares its layers. Models of transformers put hooks on their layers when they first run."""
    return copy.copy(part) if isinstance(part, diffusers.ModelMixin | diffusers.SchedulerMixin) else part


def paint(
    folder: Path,
    pipeline: str,
    call: Mapping[str, Any],
    *,
    scheduler: str,
    seed: int,
    controlnet: Any = None,
    settings: Mapping[str, Any] = MappingProxyType({}),
    prepare: Callable[[Any], None] | None = None,
) -> Image.Image:
    """Return the image of one call.

    Args:
        folder: checkpoint in diffusers layout.
        pipeline: class in diffusers.
        call: arguments of the pipeline's call.
        settings: entries of the scheduler's configuration that are changed.
        prepare: a change that the checkpoint needs, where the installed libraries do not agree with each other;
            as `make_pipeline` allows it.
    """
    painter = make_pipeline(folder, pipeline, **({} if controlnet is None else {"controlnet": controlnet}))
    _set_scheduler(painter, scheduler, settings)
    if prepare is not None:
        prepare(painter)
    image: Image.Image = painter(**call, generator=torch.Generator("cpu").manual_seed(seed)).images[0]
    return image


def paint_both_stages(
    folders: tuple[Path, Path],
    task: str,
    texts: Mapping[str, str],
    calls: tuple[Mapping[str, Any], Mapping[str, Any]],
    *,
    scheduler: str = "ddpm",
    seeds: Sequence[int] = (7,),
) -> list[Image.Image]:
    """Return the images of DeepFloyd IF's two stages, as diffusers' documentation has them made.

    Args:
        folders: checkpoints of both.
        task: in the names of both classes, such as `Img2Img`.
        texts: the prompt and the negative one, which are encoded once.
        calls: arguments of both calls; an image among them is that of each seed.
    """
    first, second = (
        make_pipeline(folder, f"IF{task}{stage}Pipeline")
        for folder, stage in zip(folders, ("", "SuperResolution"), strict=True)
    )
    prompts, negatives = first.encode_prompt(**texts, num_images_per_prompt=len(seeds), clean_caption=False)
    both = {
        "prompt_embeds": prompts,
        "negative_prompt_embeds": negatives,
        "generator": [torch.Generator("cpu").manual_seed(seed) for seed in seeds],
    }
    made: dict[str, Any] = {}
    for pipeline, call, output in ((first, calls[0], "pt"), (second, calls[1], "pil")):
        _set_scheduler(pipeline, scheduler, {})
        several = {
            name: [value] * len(seeds) if isinstance(value, Image.Image) else value for name, value in call.items()
        }
        made = {"image": pipeline(**both, **several, **made, output_type=output).images}
    images: list[Image.Image] = made["image"]
    return images


def _set_scheduler(pipeline: Any, scheduler: str, settings: Mapping[str, Any]) -> None:
    class_name, changed = SCHEDULERS[scheduler]
    config = pipeline.scheduler.config
    pipeline.scheduler = getattr(diffusers, class_name).from_config(config, **changed, **settings)
