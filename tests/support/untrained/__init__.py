"""Small untrained checkpoints of families without a trained one in `models/`: the exact classes, random weights.

One file a family, named as its id with `_` for `-`. Each has `pipeline()`, the checkpoint; `CASES`, the calls of
diffusers that its images equal, and where the installed libraries do not agree with each other `agree(pipeline)`,
which has them; `controlnet(denoiser)` where the family takes ControlNets, one that surely changes the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import MappingProxyType, ModuleType

from safetensors.torch import save_file

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec, LoraSpec
from contracts.catalogue.families import FAMILIES
from contracts.catalogue.rows.models import ModelSpec
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from tests.support.untrained_parts import SIDE
from tests.support.weights import random_adapter

#: Family -> its file here.
UNTRAINED: Mapping[str, ModuleType] = MappingProxyType(
    {
        found.name.replace("_", "-"): import_module(f"{__name__}.{found.name}")
        for found in sorted(iter_modules(__path__), key=lambda found: found.name)
    }
)


def with_untrained(catalogue: Catalogue, folder: Path) -> Catalogue:
    """Return the catalogue with a checkpoint, a LoRA and a ControlNet of each of these families."""
    models, loras, controlnets = [], [], []
    for family, module in UNTRAINED.items():
        pipeline = module.pipeline()
        pipeline.save_pretrained(folder / f"tiny-{family}")
        if FAMILIES[family].prompted_by_class:
            module.write_as_published(folder / f"tiny-{family}")
        models.append(
            ModelSpec(
                id=f"tiny-{family}",
                family=family,
                source=str(folder / f"tiny-{family}"),
                defaults={"width": SIDE, "height": SIDE, "num_inference_steps": 3},
                max_clip_skip=1,
            )
        )
        denoiser = "unet" if "unet" in pipeline.components else "transformer"
        if FAMILIES[family].denoiser_layers:
            tensors = random_adapter(pipeline.components[denoiser], denoiser, rank=4, seed=1)
            save_file(tensors, folder / f"tiny-{family}.safetensors")
            loras.append(
                LoraSpec(id=f"{family}-lora", family=family, source=str(folder / f"tiny-{family}.safetensors"))
            )
        if FAMILIES[family].controlnet:
            module.controlnet(pipeline.components[denoiser]).save_pretrained(folder / f"tiny-{family}-hint")
            controlnets.append(
                ControlNetSpec(id=f"{family}-hint", family=family, source=str(folder / f"tiny-{family}-hint"))
            )
        if FAMILIES[family].inpaint_control_only:
            mask = str(folder / f"tiny-{family}-mask")
            module.controlnet(pipeline.components[denoiser], extra_condition_channels=4).save_pretrained(mask)
            controlnets.append(ControlNetSpec(id=f"{family}-mask", family=family, source=mask, kind="inpaint"))
    limited = with_checkpoint_limits(catalogue.model_copy(update={"models": tuple(models)}))
    return catalogue.model_copy(
        update={
            "models": (*catalogue.models, *limited.models),
            "loras": (*catalogue.loras, *loras),
            "controlnets": (*catalogue.controlnets, *controlnets),
        }
    )
