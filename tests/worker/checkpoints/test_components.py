"""Folders whose parts are of another class, incomplete, or do not belong together: refused by name."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec
from contracts.catalogue.families import Mode, Task
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError, InvalidRequest
from contracts.jobs.failures import FailureCode
from contracts.storage import Storage
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from tests.support.jobs import fail_job, generate_pixels, make_job
from worker.checkpoints.components import find_class, read_index
from worker.checkpoints.controls.controlnets import check_controlnet_fits, load_controlnet
from worker.checkpoints.loader import load_model
from worker.families import get_family
from worker.pool.pool import Pool

Change = Callable[[Path], None]


def _edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _refiner(folder: Path) -> None:
    _edit(folder / "model_index.json", text_encoder=[None, None], tokenizer=[None, None])
    shutil.rmtree(folder / "text_encoder")
    shutil.rmtree(folder / "tokenizer")


def _no_vocabulary(folder: Path) -> None:
    for file in (folder / "tokenizer_2").iterdir():
        file.unlink()


def _unet_of_sd15(folder: Path) -> None:
    shutil.rmtree(folder / "unet")
    diffusers.UNet2DConditionModel(
        block_out_channels=(32, 64), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=64, layers_per_block=1,
        norm_num_groups=8,
    ).save_pretrained(folder / "unet")  # fmt: skip


def _change_weights(file: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def _drop_weight(part: str, file: str) -> Change:
    def drop(folder: Path) -> None:
        _change_weights(folder / part / file, lambda tensors: tensors.pop(next(iter(tensors))))

    return drop


def _add_weight(part: str, file: str) -> Change:
    def add(folder: Path) -> None:
        _change_weights(folder / part / file, lambda tensors: tensors.update({"extra.weight": torch.ones(1)}))

    return add


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_refiner, "has no text_encoder, which family sdxl needs"),
        (lambda folder: shutil.rmtree(folder / "tokenizer_2"), "has no folder tokenizer_2"),
        (_no_vocabulary, "tokenizer_2 has no vocabulary"),
        (_unet_of_sd15, "addition_embed_type of the UNet is None, but must be text_time"),
        (
            lambda folder: _edit(folder / "model_index.json", _class_name="StableDiffusionPipeline"),
            "is a StableDiff",
        ),
        (lambda folder: _edit(folder / "unet/config.json", _class_name="UNetMotionModel"), "unet is a UNetMotion"),
        (
            lambda folder: _edit(folder / "scheduler/scheduler_config.json", _class_name="EDMEulerScheduler"),
            "names the scheduler EulerDiscreteScheduler, and its configuration EDMEulerScheduler",
        ),
        (
            lambda folder: _edit(
                folder / "unet/config.json", quantization_config={"quant_method": "bitsandbytes"}
            ),
            r"unet is quantized by bitsandbytes .* use the checkpoint that is not",
        ),
        (_drop_weight("unet", "diffusion_pytorch_model.safetensors"), "unet lacks weights: "),
        (_drop_weight("text_encoder_2", "model.safetensors"), "text_encoder_2 lacks weights: "),
        (_drop_weight("vae", "diffusion_pytorch_model.safetensors"), "vae lacks weights: "),
        (_add_weight("unet", "diffusion_pytorch_model.safetensors"), "no layer of it takes: extra.weight"),
        (_add_weight("text_encoder", "model.safetensors"), "no layer of it takes: extra.weight"),
    ],
)
def test_a_folder_that_is_not_a_whole_checkpoint_of_its_family_is_refused_by_name(
    change: Change, reason: str, catalogue: Catalogue, tmp_path: Path
) -> None:
    """Weights that are missing were random numbers, and some folders failed only while a job ran."""
    folder = Path(shutil.copytree(catalogue.root / "shapes-sdxl", tmp_path / "sdxl"))
    change(folder)
    row = ModelSpec(id="one", family="sdxl", source=str(folder))
    with pytest.raises(CatalogueError, match=reason):
        load_model(catalogue, row, get_family("sdxl"), folder, torch.float32)


def test_a_family_whose_package_is_not_installed_names_it(catalogue: Catalogue) -> None:
    family = replace(get_family("kolors"), packages=("no_such_package",))
    with pytest.raises(CatalogueError, match="kolors needs the package no_such_package, which is not installed"):
        read_index(family, Path(catalogue.model("tiny-kolors").source))


@pytest.mark.parametrize(
    ("family", "config", "reason"),
    [
        ("sd15", {"_class_name": "ControlNetUnionModel"}, "a ControlNetUnionModel, and family sd15 needs a Contr"),
        ("sdxl", {"_class_name": "FluxControlNetModel"}, "a FluxControlNetModel"),
        ("sdxl", {"cross_attention_dim": 768}, "a ControlNet without a class name"),
        ("sdxl", {"_class_name": "ControlNetModel", "conditioning_channels": 6}, "control images of 6 channels"),
        ("sdxl", None, "config.json is missing"),
        ("flux", {"_class_name": "FluxControlNetModel", "num_mode": 10}, "union of 10 kinds"),
    ],
)
def test_a_controlnet_of_another_class_is_refused_before_it_is_read(
    family: str, config: dict[str, Any] | None, reason: str, tmp_path: Path
) -> None:
    """A union was loaded as the plain ControlNet inside it, without a word."""
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CatalogueError, match=reason):
        load_controlnet(get_family(family), tmp_path, torch.float32)


def test_a_controlnet_with_weights_too_few_or_of_another_model_is_refused(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(catalogue.root / "controlnets/shapes-sdxl-canny", tmp_path / "net"))
    file = folder / "diffusion_pytorch_model.safetensors"
    _change_weights(file, lambda tensors: tensors.pop("conv_in.weight"))
    with pytest.raises(CatalogueError, match=r"the ControlNet lacks weights: conv_in.weight"):
        load_controlnet(get_family("sdxl"), folder, torch.float32)
    net = diffusers.ControlNetModel.from_config(diffusers.ControlNetModel.load_config(folder))
    other = diffusers.UNet2DConditionModel.load_config(catalogue.root / "shapes-sdxl/unet")
    unet = diffusers.UNet2DConditionModel.from_config({**other, "cross_attention_dim": 96})
    with pytest.raises(CatalogueError, match="cross_attention_dim is 128, and the model's is 96"):
        check_controlnet_fits(net, unet)


def test_a_union_controlnet_fails_its_job_with_the_reason_and_need_not_be_tried_again(
    catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    net, weights = catalogue.root / "controlnets/shapes-sdxl-canny", "diffusion_pytorch_model.safetensors"
    config = json.loads((net / "config.json").read_text()) | {"_class_name": "ControlNetUnionModel"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shutil.copy(net / weights, tmp_path / weights)
    row = ControlNetSpec(id="sdxl-hint", family="sdxl", source=str(tmp_path))
    pool = Pool(catalogue.model_copy(update={"controlnets": (row,)}), device="cpu")
    error = fail_job(make_job(pool.catalogue, "sdxl", Mode.CONTROLNET), pool, storage)
    assert (error.code, error.retryable) == (FailureCode.MODEL_LOAD_FAILED, False)
    assert "it is a union of 6 kinds of control" in error.message


def test_an_inpainting_unet_inpaints_and_does_nothing_else(
    catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(catalogue.root / "shapes-sdxl", tmp_path / "sdxl"))
    _edit(folder / "unet/config.json", in_channels=9)

    def widen(tensors: dict[str, torch.Tensor]) -> None:
        narrow = tensors["conv_in.weight"]
        tensors["conv_in.weight"] = torch.cat([narrow, torch.zeros(narrow.shape[0], 5, 3, 3)], dim=1)

    _change_weights(folder / "unet/diffusion_pytorch_model.safetensors", widen)
    row = catalogue.model("shapes-sdxl").model_copy(update={"source": str(folder)})
    unread = catalogue.model_copy(update={"models": (row,), "default_model": row.id})
    known = with_checkpoint_limits(unread)
    assert known.model(row.id).tasks == [Task.INPAINT]
    with pytest.raises(InvalidRequest, match="runs only inpaint"):
        make_job(known, "sdxl", Mode.IMG2IMG)
    pool = Pool(known, device="cpu")
    assert generate_pixels(make_job(known, "sdxl", Mode.INPAINT), pool, storage).std() > 1
    error = fail_job(make_job(unread, "sdxl"), pool, storage)
    assert (error.code, error.retryable) == (FailureCode.MODEL_LOAD_FAILED, False)
    assert "not made for txt2img" in error.message


def _name_classes(names: list[str], writer: Connection) -> None:
    """In a process of its own: import what names classes again, without sentencepiece."""
    parts = ("diffusers", "diffusers.utils", "diffusers.utils.import_utils", "diffusers.pipelines")
    for module in list(sys.modules):
        if module in (*parts, find_class.__module__) or module.startswith("diffusers.pipelines.kolors"):
            del sys.modules[module]
    sys.modules["sentencepiece"] = None  # type: ignore[assignment]
    components = importlib.import_module("worker.checkpoints.components")
    writer.send([getattr(components.find_class(name), "__name__", None) for name in names])


def test_classes_are_found_where_the_package_of_one_family_is_not_installed() -> None:
    names = ["UNet2DConditionModel", "CLIPTextModel", "ChatGLMModel", "NoSuchClass"]
    forked = get_context("fork")
    reader, writer = forked.Pipe(duplex=False)
    process = forked.Process(target=_name_classes, args=(names, writer))
    process.start()
    writer.close()
    assert reader.recv() == [*names[:-1], None]
    process.join()
