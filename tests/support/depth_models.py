"""Small depth models with random weights, in the folders that transformers writes."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessorPil,
)

_BACKBONE = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
_NECK = {"neck_hidden_sizes": [8, 8, 16, 16], "fusion_hidden_size": 16}


def write_dpt(folder: Path, side: int = 32) -> Path:
    """A DPT, which sees squares of this side."""
    torch.manual_seed(0)
    config = DPTConfig(
        **_BACKBONE,
        **_NECK,
        intermediate_size=32,
        image_size=side,
        patch_size=8,
        backbone_out_indices=[0, 1, 2, 3],
        use_auxiliary_head=False,
    )
    DPTForDepthEstimation(config).save_pretrained(folder)
    DPTImageProcessorPil(size={"height": side, "width": side}).save_pretrained(folder)
    return folder


def write_depth_anything(folder: Path) -> Path:
    """A Depth Anything, whose input keeps the image's aspect."""
    torch.manual_seed(0)
    stages = [f"stage{number}" for number in range(1, 5)]
    backbone = Dinov2Config(
        **_BACKBONE, image_size=28, patch_size=7, out_features=stages, reshape_hidden_states=False
    )
    config = DepthAnythingConfig(
        **_NECK, backbone_config=backbone, reassemble_hidden_size=16, head_hidden_size=8, patch_size=7
    )
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    processor = DPTImageProcessorPil(
        size={"height": 28, "width": 28}, keep_aspect_ratio=True, ensure_multiple_of=7
    )
    processor.save_pretrained(folder)
    return folder
