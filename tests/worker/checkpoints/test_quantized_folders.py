"""Folders whose denoiser torchao quantized before it was saved: as diffusers loads them, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.memory.sizes.component import ModelComponents
from contracts.memory.sizes.models import read_components
from contracts.storage import Storage
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from tests.support.jobs import complete_job, decode_pixels, make_job
from worker.checkpoints.loader import load_model
from worker.checkpoints.rehearsal import rehearse_model
from worker.families import get_family
from worker.offload.stored_tensors import WrappedWeights
from worker.pool.loading.loaded_components import components_of
from worker.pool.pool import Pool

INT8 = "int8_weight_only"
SMALL: dict[str, Any] = {"width": 64, "height": 64, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def folder(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small FLUX.1 as somebody would publish it: its transformer quantized in bfloat16, and saved."""
    source, folder = (catalogue.root / "shapes-flux").resolve(), tmp_path_factory.mktemp("quantized")
    packing = diffusers.TorchAoConfig(Int8WeightOnlyConfig(set_inductor_config=False))
    transformer = diffusers.FluxTransformer2DModel.from_pretrained(
        source, subfolder="transformer", quantization_config=packing, dtype=torch.bfloat16
    )
    transformer.save_pretrained(folder / "transformer")
    for part in source.iterdir():
        if part.name != "transformer":
            (folder / part.name).symlink_to(part)
    return folder


def _rows(folder: Path, **fields: Any) -> Catalogue:
    row = ModelSpec(id="one", family="flux", source=str(folder), **fields)
    return with_checkpoint_limits(Catalogue(root=folder, default_model="one", models=(row,)))


def test_an_image_equals_that_of_bare_diffusers_and_the_plan_counts_what_is_stored(
    folder: Path, storage: Storage
) -> None:
    rows = _rows(folder)
    theirs = diffusers.FluxPipeline.from_pretrained(folder, dtype=torch.float32)(
        prompt="a red circle",
        **SMALL,
        guidance_scale=3.0,
        max_sequence_length=64,
        generator=torch.Generator("cpu").manual_seed(7),
    ).images[0]
    job = make_job(rows, "flux", guidance_scale=3.0, max_sequence_length=64, **SMALL)
    pool = Pool(rows, device="cpu")
    files, receipt = complete_job(job, pool, storage)
    assert np.array_equal(decode_pixels(files[0]), np.asarray(theirs))
    assert receipt.model.quantization == rows.model("one").quantization == INT8
    row = rows.model("one")
    loaded = load_model(rows, row, get_family("flux"), folder, torch.float32)
    assert _transformer(read_components(rows, row, 4)) == _transformer(components_of(loaded, row, torch.float32))


def _transformer(components: ModelComponents | None) -> tuple[int, int, int]:
    assert components is not None
    found = next(part for part in components.components if part.name == "transformer")
    return found.bytes, found.group_bytes, found.unpacking_bytes


def test_weights_that_were_quantized_in_one_dtype_compute_in_another() -> None:
    layer: Any = torch.nn.Sequential(torch.nn.Linear(16, 8, dtype=torch.bfloat16))
    quantize_(layer, Float8WeightOnlyConfig(set_inductor_config=False))
    values = layer[0].weight.dequantize().float()
    WrappedWeights(layer).compute_in(torch.float32)
    layer.float()
    assert torch.allclose(layer[0].weight.dequantize(), values, rtol=2**-8)
    assert layer(torch.ones(1, 16)).dtype is torch.float32


def test_what_is_quantized_in_another_way_is_refused_at_the_start_and_says_what_can_be_used(
    folder: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for part in folder.iterdir():
        (copy / part.name).symlink_to(part)
    (copy / "transformer").unlink()
    (copy / "transformer").mkdir()
    weights = "diffusion_pytorch_model.safetensors"
    (copy / "transformer" / weights).symlink_to(folder / "transformer" / weights)
    config = json.loads((folder / "transformer" / "config.json").read_text(encoding="utf-8"))
    changed = json.loads(json.dumps(config).replace("Int8WeightOnlyConfig", "Int4WeightOnlyConfig"))
    (copy / "transformer" / "config.json").write_text(json.dumps(changed), encoding="utf-8")
    rows = _rows(copy)
    with pytest.raises(CatalogueError, match=r"transformer is quantized by torchao .* torchao's int8"):
        rehearse_model(rows, rows.model("one"), get_family("flux"), copy)
    plain = (catalogue.root / "shapes-flux" / "transformer" / weights).resolve()
    (copy / "transformer" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (copy / "transformer" / weights).unlink()
    (copy / "transformer" / weights).symlink_to(plain)
    with pytest.raises(CatalogueError, match="transformer says int8_weight_only, and its weights are not"):
        load_model(rows, rows.model("one"), get_family("flux"), copy, torch.float32)
    other = _rows(folder, quantization="float8_weight_only")
    with pytest.raises(CatalogueError, match="already, as int8_weight_only: leave float8_weight_only out"):
        rehearse_model(other, other.model("one"), get_family("flux"), folder)
