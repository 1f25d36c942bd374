"""Components of a model: from a folder, a single file, a hub id, and from broken checkpoints."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.memory.planner import candidates
from contracts.memory.sizes.component import Role
from contracts.memory.sizes.models import read_components
from contracts.memory.workload import default_workload
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.counts.parameter_counts import count_values

MODELS = BUILT_IN_CATALOGUE.parent


def catalogue(root: Path = MODELS, **model: Any) -> Catalogue:
    row = ModelSpec(**{"id": "m", "family": "sdxl", "source": "shapes-sdxl", **model})
    return Catalogue(root=root, default_model="m", models=(row,))


@pytest.mark.parametrize(
    ("family", "roles"),
    [
        ("sdxl", [Role.TEXT_ENCODER, Role.TEXT_ENCODER, Role.DENOISER, Role.VAE]),
        ("sd3", [Role.TEXT_ENCODER, Role.TEXT_ENCODER, Role.T5, Role.DENOISER, Role.VAE]),
        ("flux", [Role.TEXT_ENCODER, Role.T5, Role.DENOISER, Role.VAE]),
    ],
)
def test_a_folder_gives_roles_bytes_and_activations(family: str, roles: list[Role]) -> None:
    rows = catalogue(family=family, source=f"shapes-{family}")
    single, double = (read_components(rows, rows.model("m"), value_bytes) for value_bytes in (2, 4))
    assert single is not None
    assert double is not None
    assert [component.role for component in single.components] == roles
    assert single.origin == "files"
    assert single.t5_optional is (family == "sd3")
    for small, large in zip(single.components, double.components, strict=True):
        assert large.bytes == 2 * small.bytes > 0
        assert 0 < large.group_bytes <= large.bytes
        assert large.activations == small.activations
        assert small.activations.peaks
        assert small.activations.counted


def test_a_hub_id_has_the_sizes_of_its_published_architecture() -> None:
    rows = catalogue(family="flux", source="black-forest-labs/FLUX.1-dev")
    model = read_components(rows, rows.model("m"), 2)
    assert model is not None
    assert model.origin == "architecture"
    assert sum(component.bytes for component in model.components) == 33_741_198_278
    transformer = next(component for component in model.components if component.role is Role.DENOISER)
    assert transformer.groups == "block"
    assert transformer.group_bytes < transformer.bytes // 10
    rows = catalogue(family="sd3", source="somebody/fine-tune")
    assert read_components(rows, rows.model("m"), 2) is None


def test_a_stage_ii_on_a_hub_has_the_sizes_of_its_own_unet_alone() -> None:
    rows = catalogue(family="deepfloyd", source="DeepFloyd/IF-II-L-v1.0", pipeline="IFSuperResolutionPipeline")
    model = read_components(rows, rows.model("m"), 2)
    assert model is not None
    (unet,) = model.components
    assert (unet.role, unet.bytes, unet.activations.counted) == (Role.DENOISER, 2_486_554_380, True)


@pytest.mark.parametrize(
    ("dtype", "force_upcast", "value_bytes"),
    [("float16", True, 4), ("float16", None, 4), ("float16", False, 2), ("bfloat16", True, 2), ("auto", None, 2)],
)
def test_a_vae_that_overflows_in_float16_counts_in_float32(
    tmp_path: Path, dtype: str, force_upcast: bool | None, value_bytes: int
) -> None:
    shutil.copytree(MODELS / "shapes-sdxl", tmp_path / "sdxl")
    file = tmp_path / "sdxl" / "vae" / "config.json"
    config = {key: value for key, value in json.loads(file.read_text()).items() if key != "force_upcast"}
    file.write_text(json.dumps(config if force_upcast is None else {**config, "force_upcast": force_upcast}))
    rows = catalogue(source=str(tmp_path / "sdxl"), dtype=dtype)
    model = read_components(rows, rows.model("m"), 2)
    assert model is not None
    sizes = {part.name: part for part in model.components}
    values = {name: count.values for name, count in count_values(MODELS / "shapes-sdxl").items()}
    assert sizes["vae"].bytes == value_bytes * values["vae"]
    assert sizes["vae"].value_bytes == value_bytes
    assert sizes["unet"].bytes == 2 * values["unet"]
    workload = default_workload(rows.model("m"))
    narrow = replace(sizes["vae"], value_bytes=2)
    other = replace(model, components=(*(one for one in model.components if one.name != "vae"), narrow))
    decode, narrower = (candidates(one, workload, 2**40)[0].stage_bytes["decode"] for one in (model, other))
    assert (decode > narrower) is (value_bytes == 4)


def test_a_unet_is_streamed_by_layers_because_its_blocks_are_large() -> None:
    rows = catalogue(source="somebody/fine-tune")
    model = read_components(rows, rows.model("m"), 2)
    assert model is not None
    unet = next(component for component in model.components if component.role is Role.DENOISER)
    assert unet.groups == "leaf"
    assert unet.group_bytes < unet.bytes // 20


def test_a_single_file_has_the_components_of_its_configuration(tmp_path: Path) -> None:
    save_file({"model.weight": torch.zeros(10)}, tmp_path / "one.safetensors")
    rows = catalogue(source=str(tmp_path / "one.safetensors"), config=str(MODELS / "shapes-sdxl"))
    folder = read_components(catalogue(), catalogue().model("m"), 2)
    assert read_components(rows, rows.model("m"), 2) == folder
    alone = catalogue(source=str(tmp_path / "one.safetensors"))
    model = read_components(alone, alone.model("m"), 2)
    assert model is not None
    assert [(part.name, part.bytes) for part in model.components] == [("checkpoint", 20)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "vae/config.json: "),
        ("[]", "vae/config.json is not a JSON object"),
        (json.dumps({"_class_name": "AutoencoderKL"}), "the configuration of vae lacks 'block_out_channels'"),
    ],
)
def test_a_broken_configuration_is_named(tmp_path: Path, text: str, message: str) -> None:
    shutil.copytree(MODELS / "shapes-sdxl" / "vae", tmp_path / "model" / "vae")
    (tmp_path / "model" / "vae" / "config.json").write_text(text)
    rows = catalogue(tmp_path, source="model")
    with pytest.raises(CatalogueError, match=message):
        read_components(rows, rows.model("m"), 2)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "model" / "unet"
    folder.mkdir(parents=True)
    save_file({"a": torch.zeros(4)}, folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 32}, "weight_map": shards}))
    rows = catalogue(tmp_path, source="model")
    with pytest.raises(CatalogueError, match=r"lacks unet/model-00002-of-00002\.safetensors"):
        read_components(rows, rows.model("m"), 2)
    save_file({"b": torch.zeros(6)}, folder / "model-00002-of-00002.safetensors")
    model = read_components(rows, rows.model("m"), 2)
    assert model is not None
    assert model.components[0].bytes == 20
    index.write_text("{}")
    with pytest.raises(CatalogueError, match="is not an index"):
        read_components(rows, rows.model("m"), 2)
