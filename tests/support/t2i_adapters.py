"""Small T2I-Adapters with random weights, for the small models of Stable Diffusion 1 and SDXL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec
from tests.support.untrained_parts import seeded


def t2i_adapter(unet: Any, seed: int = 1, **options: Any) -> Any:
    """A T2I-Adapter for a small UNet, both of whose blocks halve the image behind their attention, if at all.

    Args:
        unet: or its configuration.
        options: in place of the usual ones.
    """
    channels = list(getattr(unet, "config", unet)["block_out_channels"])
    usual = {"in_channels": 3, "channels": channels, "num_res_blocks": 1, "adapter_type": "full_adapter"}
    made = seeded(lambda: diffusers.T2IAdapter(**{**usual, **options}), seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2.5)  # else its features would hardly change an image
    return made


def with_t2i_adapters(catalogue: Catalogue, folder: Path) -> Catalogue:
    """The catalogue with T2I-Adapters: `sdxl-t2i`, `sdxl-t2i-grey`, which reads brightness, and `sd15-t2i`."""
    rows = []
    for id, model, options in (
        ("sdxl-t2i", "shapes-sdxl", {}),
        ("sdxl-t2i-grey", "shapes-sdxl", {"in_channels": 1}),
        ("sd15-t2i", "tiny-sd15", {}),
    ):
        source = next((row.source for row in catalogue.models if row.id == model), None)
        if source is None:
            continue
        config = diffusers.UNet2DConditionModel.load_config(catalogue.root / source / "unet")
        t2i_adapter(config, **options).save_pretrained(folder / id)
        rows.append(
            ControlNetSpec(id=id, family=id.partition("-")[0], source=str(folder / id), kind="t2i_adapter")
        )
    return catalogue.model_copy(update={"controlnets": (*catalogue.controlnets, *rows)})
