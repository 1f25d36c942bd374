"""Denoisers that torchao quantizes: bare diffusers' images, the planned bytes, placements, adapters."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

from contracts.catalogue.catalogue import Catalogue, LoraSpec
from contracts.catalogue.quantizations import QUANTIZATIONS, kinds_of
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.memory.plan import Placement
from contracts.memory.planner import candidates
from contracts.memory.policy import Policy
from contracts.memory.sizes.component import Component, ModelComponents
from contracts.memory.sizes.models import read_components
from contracts.memory.workload import workload_of
from contracts.storage import Storage
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from tests.support.combinations import usual_or_all
from tests.support.jobs import Pixels, complete_job, decode_pixels, generate_pixels, make_job
from tests.support.lycoris import write_lycoris
from tests.support.original_layout import write_unet_file
from tests.support.weights import write_adapter
from worker.checkpoints.components import load_components
from worker.checkpoints.loader import load_model
from worker.checkpoints.one_file.original_layout import load_file_components
from worker.checkpoints.one_file.single_file import SingleFile
from worker.checkpoints.quantized import torchao_weights
from worker.checkpoints.quantized.packed_weights import is_quantized
from worker.checkpoints.rehearsal import rehearse_model
from worker.families import get_family
from worker.offload.stored_tensors import stored_tensors
from worker.pool.loading.loaded_components import components_of
from worker.pool.pool import Pool
from worker.runtime.memory_tracker import MemoryTracker

INT8, FLOAT8 = "int8_weight_only", "float8_weight_only"
CONFIGS: dict[str, Any] = {INT8: Int8WeightOnlyConfig, FLOAT8: Float8WeightOnlyConfig}
#: Family -> its quantization here, and the class of its denoiser: a UNet of convolutions too, and transformers.
FAMILIES: dict[str, tuple[str, Any]] = {
    "flux": (INT8, diffusers.FluxTransformer2DModel),
    "sd3": (FLOAT8, diffusers.SD3Transformer2DModel),
    "sdxl": (INT8, diffusers.UNet2DConditionModel),
}
SMALL: dict[str, Any] = {"width": 64, "height": 64, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def rows(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """The small models, quantized; the FLUX.1 as it is, too, and two adapters for it."""
    folder = tmp_path_factory.mktemp("torchao")
    models = _quantized(catalogue)
    flux = Path(models[0].source)
    models.append(ModelSpec(id="plain", family="flux", source=str(flux), defaults=SMALL))
    write_lycoris(folder / "kinds.safetensors", "flux", flux)
    write_adapter(folder / "lora.safetensors", "flux", flux)
    loras = [LoraSpec(id=id, family="flux", source=str(folder / f"{id}.safetensors")) for id in ("kinds", "lora")]
    return with_checkpoint_limits(
        Catalogue(root=folder, default_model="flux", models=tuple(models), loras=tuple(loras))
    )


def _quantized(catalogue: Catalogue) -> list[ModelSpec]:
    return [
        ModelSpec(
            id=family,
            family=family,
            source=str((catalogue.root / f"shapes-{family}").resolve()),
            quantization=kind,
            defaults=SMALL,
        )
        for family, (kind, _) in FAMILIES.items()
    ]


@pytest.fixture(scope="module")
def pool_of(rows: Catalogue) -> Callable[[str], Pool]:
    """A model's pool, which loads it once."""
    return cache(lambda model: Pool(_only(rows, model), device="cpu"))


def _only(rows: Catalogue, model: str) -> Catalogue:
    return rows.model_copy(update={"models": (rows.model(model),), "default_model": model})


def _image(pool: Pool, storage: Storage, **fields: Any) -> Pixels:
    job = make_job(pool.catalogue, pool.catalogue.models[0].family, **SMALL, **fields)
    return generate_pixels(job, pool, storage)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_equals_that_of_bare_diffusers_and_its_receipt_names_the_quantization(
    family: str, rows: Catalogue, pool_of: Callable[[str], Pool], storage: Storage
) -> None:
    kind, denoiser_class = FAMILIES[family]
    source, name = rows.model(family).source, get_family(family).denoiser
    denoiser = denoiser_class.from_pretrained(
        source,
        subfolder=name,
        # The default changes settings of torch.compile for all tests of this process.
        quantization_config=diffusers.TorchAoConfig(CONFIGS[kind](set_inductor_config=False)),
        dtype=torch.float32,
    )
    pipeline = diffusers.DiffusionPipeline.from_pretrained(source, **{name: denoiser}, dtype=torch.float32)
    theirs = pipeline(
        prompt="a red circle", **SMALL, guidance_scale=3.0, generator=torch.Generator("cpu").manual_seed(7)
    ).images[0]
    job = make_job(rows, family, model=family, guidance_scale=3.0, **SMALL)
    files, receipt = complete_job(job, pool_of(family), storage)
    assert np.array_equal(decode_pixels(files[0]), np.asarray(theirs))
    assert receipt.model.quantization == kind
    assert "torchao" in receipt.versions


@pytest.mark.parametrize("family", usual_or_all("sdxl", FAMILIES))
def test_the_planned_bytes_are_those_that_are_loaded(family: str, rows: Catalogue) -> None:
    row = rows.model(family)
    planned = _denoiser(read_components(rows, row, 4))
    pipeline = load_model(rows, row, get_family(family), Path(row.source), torch.float32)
    assert planned == _denoiser(components_of(pipeline, row, torch.float32))
    denoiser = getattr(pipeline, get_family(family).denoiser)
    loaded = stored_tensors((*denoiser.parameters(), *denoiser.buffers()))
    assert planned.bytes == sum(tensor.nbytes for tensor in loaded)


def test_the_denoiser_of_a_single_file_is_quantized_as_that_of_a_folder(rows: Catalogue, tmp_path: Path) -> None:
    folder, family, file = Path(rows.model("sdxl").source), get_family("sdxl"), tmp_path / "unet.safetensors"
    write_unet_file(folder, file)
    others = ("text_encoder", "text_encoder_2", "vae")
    given: Any = (family, folder, torch.float32, None, others, {"unet": INT8})
    loaded = load_file_components(SingleFile(file), *given)["unet"].state_dict()
    expected = load_components(*given)["unet"].state_dict()
    assert loaded.keys() == expected.keys()
    assert any(map(is_quantized, loaded.values()))
    for name, tensor in expected.items():
        for own, theirs in zip(stored_tensors([loaded[name]]), stored_tensors([tensor]), strict=True):
            assert torch.equal(own, theirs), name


def _denoiser(components: ModelComponents | None) -> Component:
    assert components is not None
    return next(part for part in components.components if part.name in ("transformer", "unet"))


@pytest.mark.parametrize("kind", kinds_of("torchao"))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_takes_for_a_moment_what_the_table_of_quantizations_says(kind: str, dtype: torch.dtype) -> None:
    values = 128 * 64
    layer = torch.nn.Sequential(torch.nn.Linear(128, 64, dtype=dtype))
    torchao_weights.quantize(layer, kind)
    assert is_quantized(layer[0].weight)
    tracker = MemoryTracker(torch.device("cpu"), 2**30)
    with torch.inference_mode(), tracker.running(0):
        layer(torch.ones(1, 128, dtype=dtype))
    expected = max(QUANTIZATIONS[kind].unpacking_bytes, dtype.itemsize)
    assert tracker.peak_bytes is not None
    # In float32 the values of float8 need no copy in the dtype of the layer.
    assert 0.75 * expected <= tracker.peak_bytes / values <= 1.05 * expected


@pytest.mark.parametrize("family", usual_or_all("sdxl", FAMILIES))
def test_a_streamed_plan_gives_the_same_image_as_all_resident_and_takes_what_was_planned(
    family: str, shipped: Catalogue, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantized = with_checkpoint_limits(
        shipped.model_copy(update={"models": tuple(_quantized(shipped)), "default_model": family})
    )
    only, whole = _only(quantized, family), Pool(_only(quantized, family), device="cpu")
    job = make_job(only, family, width=128, height=128, num_inference_steps=2)
    components = read_components(only, only.model(family), 4)
    assert components is not None
    plans = candidates(components, workload_of(family, job), 2**40, Policy(allow_fp8=True, cudnn=False))
    assert not any(plan.fp8 for plan in plans)
    streamed = plans[-1]
    assert streamed.placements[get_family(family).denoiser] is Placement.STREAMED
    # A pool plans for 95 % of a budget that it enforces.
    tight = Pool(only, device="cpu", budget_bytes=int(streamed.peak_bytes / 0.95) + 1)
    files, receipt = complete_job(job, tight, storage)
    tiled = plans[0].model_copy(update={"tile_side": streamed.tile_side})
    monkeypatch.setattr(whole.plan_selector, "choose", lambda *_: tiled)
    assert np.array_equal(decode_pixels(files[0]), generate_pixels(job, whole, storage))
    assert receipt.memory is not None
    assert receipt.memory.peak_bytes is not None
    assert (receipt.memory.plan, receipt.memory.ran_out) == (streamed.name, [])
    assert 0.8 * streamed.peak_bytes <= receipt.memory.peak_bytes <= streamed.peak_bytes


def test_adapters_of_all_kinds_act_as_on_the_values_and_leave_no_trace(
    pool_of: Callable[[str], Pool], storage: Storage
) -> None:
    loras = [{"name": "kinds"}, {"name": "lora", "scale": 0.5}]
    before, adapted = _image(pool_of("flux"), storage), _image(pool_of("flux"), storage, loras=loras)
    plain = _image(pool_of("plain"), storage, loras=loras)
    # Weights of 8 bits are not those of 32: the adapters' part of the image is far more than that.
    assert np.abs(adapted - before).mean() > 10 * np.abs(adapted - plain).mean()
    assert np.array_equal(before, _image(pool_of("flux"), storage))


def test_without_the_package_a_row_is_refused_at_the_start_and_says_what_to_install(
    rows: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchao_weights, "find_spec", lambda name: None)
    row = rows.model("flux")
    given = (rows, row, get_family("flux"), Path(row.source))
    missing = pytest.raises(
        CatalogueError, match=r"package torchao: pip install 'darkroom\[quantization-torchao\]'"
    )
    with missing:
        rehearse_model(*given)
    with missing:
        load_model(*given, torch.float32)
    rehearse_model(rows, rows.model("plain"), *given[2:])


def test_a_quantization_that_does_not_exist_is_refused_when_the_catalogue_is_read() -> None:
    with pytest.raises(ValueError, match=r"must be one of int8_weight_only, .*, bitsandbytes_nf4, got 'int8'"):
        ModelSpec(id="one", family="flux", source="black-forest-labs/FLUX.1-dev", quantization="int8")
