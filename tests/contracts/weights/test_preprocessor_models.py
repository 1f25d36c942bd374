"""The folder of a preprocessor: read as what it is, or refused by what is wrong with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from contracts.catalogue.rows.networks import MapKind
from contracts.errors import CatalogueError
from contracts.hub.errors import HubRefused
from contracts.hub.folders import folder_files
from contracts.hub.repository_files import RepositoryFiles
from contracts.hub.selection import transformers_files
from contracts.weights.preprocessor_models import read_preprocessor

DPT = {"architectures": ["DPTForDepthEstimation"], "hidden_size": 8}
SEGFORMER = {
    "architectures": ["SegformerForSemanticSegmentation"],
    "id2label": {str(number): f"class {number}" for number in range(150)},
}
UPERNET = {
    **SEGFORMER,
    "architectures": ["UperNetForSemanticSegmentation"],
    "backbone_config": {"model_type": "convnext"},
}
VITPOSE = {
    "architectures": ["VitPoseForPoseEstimation"],
    "id2label": {str(number): f"joint {number}" for number in range(17)},
    "backbone_config": {"patch_size": [16, 16]},
}
KINDS: dict[MapKind, dict[str, Any]] = {"depth": DPT, "segmentation": SEGFORMER, "pose": VITPOSE}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "preprocessor_config.json").write_text("{}", encoding="utf-8")
    save_file({"layer.weight": torch.zeros(8, 4)}, tmp_path / "model.safetensors")
    return tmp_path


def describe(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_each_kind_is_read_with_its_class_and_what_its_transformers_defaults_take(folder: Path) -> None:
    found = {kind: read_preprocessor(describe(folder, config), kind) for kind, config in KINDS.items()}
    assert [facts.class_name for facts in found.values()] == [
        config["architectures"][0] for config in KINDS.values()
    ]
    assert {facts.values for facts in found.values()} == {32}
    upernet = read_preprocessor(describe(folder, UPERNET), "segmentation")
    assert upernet.pixel_values > found["segmentation"].pixel_values > 100


@pytest.mark.parametrize(
    ("kind", "config", "text"),
    [
        ("depth", DPT | {"architectures": ["GLPNForDepthEstimation"]}, "is a GLPNForDepthEstimation; only DPTFor"),
        ("segmentation", DPT, "is a DPTForDepthEstimation; only Segformer.* and UperNet.* can run"),
        ("pose", {"model_type": "yolos"}, "is a yolos; only VitPoseForPoseEstimation can run"),
        ("depth", DPT | {"hidden_size": "much"}, "hidden_size must be a positive whole number"),
        (
            "segmentation",
            SEGFORMER | {"id2label": {"0": "road"}},
            "has 1 labels; .* the 150 classes of ADE20K",
        ),
        ("segmentation", UPERNET | {"backbone_config": {"model_type": "timm"}}, "backbone is timm; only convnext"),
        ("segmentation", UPERNET | {"backbone_config": []}, "backbone is None"),
        ("pose", VITPOSE | {"id2label": SEGFORMER["id2label"]}, "has 150 labels; .* need the 17 joints of COCO"),
        ("pose", VITPOSE | {"backbone_config": "vit"}, "backbone_config must be a JSON object"),
    ],
)
def test_another_model_is_refused_by_what_it_is(
    folder: Path, kind: MapKind, config: dict[str, Any], text: str
) -> None:
    with pytest.raises(CatalogueError, match=text):
        read_preprocessor(describe(folder, config), kind)


@pytest.mark.parametrize("file", ["preprocessor_config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_refused_by_its_name(folder: Path, file: str) -> None:
    (describe(folder, DPT) / file).unlink()
    with pytest.raises(CatalogueError, match=f"has no {file}"):
        read_preprocessor(folder, "depth")


def test_its_processor_is_among_the_files_whose_hash_is_on_receipts(folder: Path) -> None:
    names = folder_files(RepositoryFiles.in_folder(describe(folder, DPT)))
    assert names == ["config.json", "model.safetensors", "preprocessor_config.json"]


def test_of_a_repository_its_configurations_and_weights_are_fetched_and_never_pickles(folder: Path) -> None:
    files = RepositoryFiles.in_folder(describe(folder, DPT))
    names = {*files.names, "README.md", "model.bin"}
    chosen = transformers_files()(replace(files, names=names))
    assert chosen == ["config.json", "preprocessor_config.json", "model.safetensors"]
    with pytest.raises(HubRefused, match="only pickles"):
        transformers_files()(replace(files, names=names - {"model.safetensors"}))
    with pytest.raises(HubRefused, match=r"has no preprocessor_config\.json"):
        transformers_files()(replace(files, names=names - {"preprocessor_config.json"}))
