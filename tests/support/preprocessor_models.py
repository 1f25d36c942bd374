"""Small preprocessors with random weights, in the folders that transformers writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from transformers import (
    ConvNextConfig,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessorPil,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessorPil,
    SwinConfig,
    UperNetConfig,
    UperNetForSemanticSegmentation,
    VitPoseBackboneConfig,
    VitPoseConfig,
    VitPoseForPoseEstimation,
    VitPoseImageProcessorPil,
)

_BACKBONE = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
_STAGES = ["stage1", "stage2", "stage3", "stage4"]
_NECK = {"neck_hidden_sizes": [8, 8, 16, 16], "fusion_hidden_size": 16}


def photo(size: tuple[int, int] = (60, 40)) -> Image.Image:
    """An image with something on it."""
    image = Image.new("RGB", size, "yellow")
    ImageDraw.Draw(image).ellipse((10, 8, 40, 36), fill="navy")
    return image


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


def write_segformer(folder: Path, side: int = 64) -> Path:
    """A SegFormer of ADE20K's classes, which sees squares of this side."""
    torch.manual_seed(0)
    config = SegformerConfig(
        depths=[1] * 4,
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        num_labels=150,
    )
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    SegformerImageProcessorPil(size={"height": side, "width": side}).save_pretrained(folder)
    return folder


def write_upernet(folder: Path, side: int = 64, *, swin: bool = False) -> Path:
    """A UperNet of ADE20K's classes on a ConvNeXt or a Swin, which sees squares of this side."""
    torch.manual_seed(0)
    backbone: SwinConfig | ConvNextConfig = ConvNextConfig(
        depths=[1] * 4, hidden_sizes=[8, 8, 16, 16], out_features=_STAGES
    )
    if swin:
        backbone = SwinConfig(
            depths=[1] * 4,
            embed_dim=8,
            num_heads=[1, 1, 2, 2],
            window_size=2,
            image_size=side,
            out_features=_STAGES,
        )
    config = UperNetConfig(
        backbone_config=backbone, hidden_size=16, pool_scales=[1, 2], auxiliary_channels=8, num_labels=150
    )
    if swin:
        config.auxiliary_in_channels = 32
    UperNetForSemanticSegmentation(config).save_pretrained(folder)
    SegformerImageProcessorPil(size={"height": side, "width": side}).save_pretrained(folder)
    return folder


def write_vitpose(
    folder: Path, size: tuple[int, int] = (64, 48), *, simple: bool = True, experts: int = 1
) -> Path:
    """A VitPose of COCO's joints, which sees images of this height and width."""
    torch.manual_seed(0)
    backbone = VitPoseBackboneConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=list(size),
        num_experts=experts,
        part_features=8,
        out_indices=[2],
    )
    config = VitPoseConfig(backbone_config=backbone, use_simple_decoder=simple, num_labels=17)
    VitPoseForPoseEstimation(config).save_pretrained(folder)
    VitPoseImageProcessorPil(size={"height": size[0], "width": size[1]}).save_pretrained(folder)
    return folder


_WRITERS: dict[str, Callable[[Path], Path]] = {
    "dpt": lambda folder: write_dpt(folder, side=128),
    "depth anything": write_depth_anything,
    "segformer": lambda folder: write_segformer(folder, side=128),
    "upernet": lambda folder: write_upernet(folder, side=128),
    "upernet on swin": lambda folder: write_upernet(folder, side=128, swin=True),
    "vitpose": lambda folder: write_vitpose(folder, (256, 192), simple=False),
}


class PreprocessorFolders:
    """Folders of small models, each written once, and not to be changed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, name: str) -> Path:
        """The folder of a model, by its name."""
        folder = self._root / name.replace(" ", "-")
        return folder if folder.exists() else _WRITERS[name](folder)
