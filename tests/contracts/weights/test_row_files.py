"""Rows whose files are another family's are refused by their descriptions, before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.weights.row_files import check_row_files


def _catalogue(folder: Path, model: ModelSpec) -> Catalogue:
    return Catalogue(root=folder, default_model="one", models=(model,))


def _write(folder: Path, name: str, description: dict[str, object]) -> None:
    folder.mkdir()
    (folder / name).write_text(json.dumps(description))
    save_file({"a": np.ones(1, np.float32)}, folder / "diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize(
    ("pipeline", "family"),
    [("StableDiffusionXLPipeline", "sdxl"), ("StableDiffusion3Pipeline", "sd3"), ("FluxPipeline", "flux")],
)
def test_a_class_whose_name_begins_as_another_familys_is_refused(
    pipeline: str, family: str, tmp_path: Path
) -> None:
    _write(tmp_path / "m", "model_index.json", {"_class_name": pipeline})
    row = ModelSpec(id="one", family="sd15", source="m")
    with pytest.raises(CatalogueError, match=f'needs a StableDiffusionPipeline: set family = "{family}"'):
        check_row_files(_catalogue(tmp_path, row), row)


@pytest.mark.parametrize(
    ("width", "family", "owner"), [(2048, "sd15", "sdxl"), (768, "sdxl", "sd15"), (1024, "sdxl", "sd15")]
)
def test_a_controlnet_for_prompts_of_another_familys_width_is_refused(
    width: int, family: str, owner: str, tmp_path: Path
) -> None:
    config = {"_class_name": "ControlNetModel", "cross_attention_dim": width}
    _write(tmp_path / "net", "config.json", config)
    catalogue = _catalogue(tmp_path, ModelSpec(id="one", family="sdxl", source="m"))
    with pytest.raises(CatalogueError, match=f'cross_attention_dim is {width}.* set family = "{owner}"'):
        check_row_files(catalogue, ControlNetSpec(id="net", family=family, source="net"))
    check_row_files(catalogue, ControlNetSpec(id="net", family=owner, source="net"))


@pytest.mark.parametrize(
    ("class_name", "kind", "reason"),
    [
        ("T2IAdapter", "hint", 'it is a T2IAdapter, not a ControlNet: .* kind = "t2i_adapter"'),
        ("ControlNetModel", "t2i_adapter", "it is a ControlNetModel, and a row .* needs a T2IAdapter"),
        ("T2IAdapter", "t2i_adapter", None),
    ],
)
def test_a_t2i_adapter_is_known_for_what_it_is(
    class_name: str, kind: Any, reason: str | None, tmp_path: Path
) -> None:
    _write(tmp_path / "net", "config.json", {"_class_name": class_name})
    catalogue = _catalogue(tmp_path, ModelSpec(id="one", family="sdxl", source="m"))
    row = ControlNetSpec(id="net", family="sdxl", source="net", kind=kind)
    if reason is None:
        check_row_files(catalogue, row)
        (tmp_path / "net" / "config.json").rename(tmp_path / "config.json")
        weights = row.model_copy(update={"source": "net/diffusion_pytorch_model.safetensors"})
        with pytest.raises(CatalogueError, match=r"needs its config\.json beside its weights"):
            check_row_files(catalogue, weights)
    else:
        with pytest.raises(CatalogueError, match=reason):
            check_row_files(catalogue, row)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"family": "flux"}, "flux has no T2I-Adapters"),
        ({"family": "sdxl", "modes": ("canny",)}, "remove `modes`"),
    ],
)
def test_a_row_of_a_t2i_adapter_that_nothing_could_use_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ControlNetSpec(id="net", source="net", kind="t2i_adapter", **fields)


@pytest.mark.parametrize("pipeline", ["QwenImage21Pipeline", "QwenImageFooPipeline"])
def test_a_class_that_a_family_cannot_run_is_refused_though_its_name_begins_alike(
    pipeline: str, tmp_path: Path
) -> None:
    _write(tmp_path / "m", "model_index.json", {"_class_name": pipeline})
    row = ModelSpec(id="one", family="qwen-image", source="m")
    with pytest.raises(CatalogueError, match=f"it is a {pipeline}, which family qwen-image cannot use; it uses"):
        check_row_files(_catalogue(tmp_path, row), row)


@pytest.mark.parametrize(
    "pipeline", ["QwenImagePipeline", "QwenImageInpaintPipeline", "QwenImageImg2ImgPipeline",
                 "QwenImageEditPipeline", "QwenImageEditInpaintPipeline", "QwenImageEditPlusPipeline",
                 "QwenImageLayeredPipeline"]
)  # fmt: skip
def test_classes_of_other_tasks_and_checkpoints_of_a_family_are_taken(pipeline: str, tmp_path: Path) -> None:
    _write_checkpoint(tmp_path / "m", pipeline)
    row = ModelSpec(id="one", family="qwen-image", source="m")
    check_row_files(_catalogue(tmp_path, row), row)


@pytest.mark.parametrize(
    ("family", "pipeline"), [("flux", "FluxKontextPipeline"), ("sdxl", "StableDiffusionXLImg2ImgPipeline")]
)
def test_a_row_may_name_the_class_of_another_checkpoint_of_its_family(
    family: str, pipeline: str, tmp_path: Path
) -> None:
    _write_checkpoint(tmp_path / "m", pipeline)
    row = ModelSpec(id="one", family=family, source="m", pipeline=pipeline)

    check_row_files(_catalogue(tmp_path, row), row)

    assert row.family_spec.pipeline == pipeline


_FP4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}


@pytest.mark.parametrize("component", ["transformer", "text_encoder", "vae"])
@pytest.mark.parametrize(
    ("settings", "way"),
    [
        (_FP4, " by bitsandbytes"),
        ({"quant_method": "gguf"}, " by gguf"),
        ({"quant_method": "x"}, " by x"),
        ([1], ""),
    ],
)
def test_weights_that_are_quantized_in_a_way_that_cannot_be_used_are_refused_by_the_method(
    settings: object, way: str, component: str, tmp_path: Path
) -> None:
    _write_checkpoint(tmp_path / "m", "QwenImagePipeline")
    (tmp_path / "m" / component).mkdir(exist_ok=True)
    (tmp_path / "m" / component / "config.json").write_text(json.dumps({"quantization_config": settings}))
    row = ModelSpec(id="one", family="qwen-image", source="m")
    reason = f"m: its {component} is quantized{way} .* not supported: .* torchao's int8_weight_only"
    with pytest.raises(CatalogueError, match=reason):
        check_row_files(_catalogue(tmp_path, row), row)


def _write_checkpoint(folder: Path, pipeline: str) -> None:
    folder.mkdir()
    (folder / "model_index.json").write_text(
        json.dumps({"_class_name": pipeline, "transformer": ["diffusers", "QwenImageTransformer2DModel"]})
    )
    (folder / "transformer").mkdir()
    (folder / "transformer" / "config.json").write_text("{}")
    save_file({"a": np.ones(1, np.float32)}, folder / "transformer" / "diffusion_pytorch_model.safetensors")
