"""Denoisers that bitsandbytes quantizes, with its kernels for CPUs: bytes, images, placements, adapters.

diffusers' quantizers ask for a card, and a worker refuses without one; both are told that there is one. What the
kernels of CUDA make of the same weights, the block `bitsandbytes` of `make gpu-check` reports.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.quantizers.bitsandbytes.bnb_quantizer import BnB4BitDiffusersQuantizer, BnB8BitDiffusersQuantizer

from contracts.catalogue.catalogue import Catalogue, LoraSpec
from contracts.catalogue.quantizations import QUANTIZATIONS, kinds_of
from contracts.catalogue.rows.models import ModelSpec
from contracts.memory.plan import Placement
from contracts.memory.planner import candidates
from contracts.memory.policy import Policy
from contracts.memory.sizes.component import Component, ModelComponents
from contracts.memory.sizes.models import read_components
from contracts.memory.workload import workload_of
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.storage import Storage
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from tests.support.gpu_blocks.quantized import bitsandbytes
from tests.support.gpu_blocks.setup import prepare
from tests.support.jobs import complete_job, decode_pixels, generate_pixels, make_job
from tests.support.lycoris import write_lycoris
from tests.support.weights import write_adapter
from worker.checkpoints.loader import load_model
from worker.checkpoints.quantized import bitsandbytes_weights, packed_weights
from worker.checkpoints.rehearsal import rehearse_model
from worker.families import get_family
from worker.offload.stored_tensors import stored_tensors
from worker.pool.loading.loaded_components import components_of
from worker.pool.pool import Pool

KINDS = kinds_of("bitsandbytes")
SOURCE = (BUILT_IN_CATALOGUE.parent / "shapes-flux").resolve()
SMALL: dict[str, Any] = {"width": 64, "height": 64, "num_inference_steps": 2, "max_sequence_length": 64}


@pytest.fixture(autouse=True)
def as_with_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks for a card."""
    monkeypatch.setattr(bitsandbytes_weights, "require_card", lambda _: None)
    for quantizer in (BnB4BitDiffusersQuantizer, BnB8BitDiffusersQuantizer):
        monkeypatch.setattr(quantizer, "validate_environment", lambda *_, **__: None)


def _rows(folder: Path, source: Path = SOURCE, **fields: Any) -> Catalogue:
    row = ModelSpec(id="one", family="flux", source=str(source), dtype="bfloat16", defaults=SMALL, **fields)
    write_lycoris(folder / "kinds.safetensors", "flux", SOURCE)
    write_adapter(folder / "lora.safetensors", "flux", SOURCE)
    loras = [LoraSpec(id=id, family="flux", source=str(folder / f"{id}.safetensors")) for id in ("kinds", "lora")]
    return with_checkpoint_limits(Catalogue(root=folder, default_model="one", models=(row,), loras=tuple(loras)))


def _quantized(kind: str, **more: Any) -> Any:
    """The transformer as bare diffusers quantizes it; `more` are further options of the configuration."""
    options: dict[str, Any] = {QUANTIZATIONS[kind].config: True, "llm_int8_enable_fp32_cpu_offload": True}
    if kind == "bitsandbytes_nf4":
        options |= {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}
    transformer = diffusers.FluxTransformer2DModel.from_pretrained(
        SOURCE, subfolder="transformer", dtype=torch.bfloat16, device_map={"": "cpu"},
        quantization_config=diffusers.BitsAndBytesConfig(**options, **more),
    )  # fmt: skip
    for layer in transformer.modules():
        if type(layer).__name__ == "Linear4bit":
            layer.support_avx512bf16_for_cpu = False
    return transformer


def _published(kind: str, folder: Path, **more: Any) -> Path:
    """The checkpoint as somebody would publish it: its transformer quantized and saved."""
    folder.mkdir()
    _quantized(kind, **more).save_pretrained(folder / "transformer")
    for part in SOURCE.iterdir():
        if part.name != "transformer":
            (folder / part.name).symlink_to(part)
    return folder


def _denoiser(found: ModelComponents | None) -> Component:
    assert found is not None
    return next(part for part in found.components if part.name == "transformer")


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_equals_that_of_bare_diffusers_quantized_now_or_before(
    kind: str, storage: Storage, tmp_path: Path
) -> None:
    pipeline = diffusers.FluxPipeline.from_pretrained(SOURCE, transformer=_quantized(kind), dtype=torch.bfloat16)
    generator = torch.Generator("cpu").manual_seed(7)
    theirs = pipeline(prompt="a red circle", **SMALL, guidance_scale=3.0, generator=generator).images[0]
    published = tmp_path / "published"
    for rows in (_rows(tmp_path, quantization=kind), _rows(tmp_path, _published(kind, published))):
        job = make_job(rows, "flux", guidance_scale=3.0, **SMALL)
        rehearse_model(rows, rows.model("one"), get_family("flux"), Path(rows.model("one").source))
        files, receipt = complete_job(job, Pool(rows, device="cpu"), storage)
        assert np.array_equal(decode_pixels(files[0]), np.asarray(theirs))
        assert receipt.model.quantization == rows.model("one").quantization == kind


@pytest.mark.parametrize("kind", KINDS)
def test_the_planned_bytes_are_those_that_are_loaded(kind: str, tmp_path: Path) -> None:
    published = tmp_path / "published"
    for rows, exact in (
        (_rows(tmp_path, _published(kind, published)), True),
        (_rows(tmp_path, quantization=kind), False),
    ):
        row = rows.model("one")
        pipeline = load_model(rows, row, get_family("flux"), Path(row.source), torch.bfloat16)
        transformer = pipeline.transformer
        loaded = sum(
            tensor.nbytes for tensor in stored_tensors((*transformer.parameters(), *transformer.buffers()))
        )
        planned = _denoiser(read_components(rows, row, 2))
        assert _denoiser(components_of(pipeline, row, torch.bfloat16)).bytes == loaded
        # A row's plan leaves out the tables of 16 values, one a weight.
        assert planned.bytes == loaded if exact else 0.99 * loaded < planned.bytes <= loaded


@pytest.mark.parametrize("kind", KINDS)
def test_scales_move_with_their_weights_and_nothing_of_them_stays_behind(
    kind: str, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = _rows(tmp_path, quantization=kind)
    job = make_job(rows, "flux", **SMALL)
    found = read_components(rows, rows.model("one"), 2)
    assert found is not None
    resident = candidates(found, workload_of("flux", job), 2**40, Policy())[0]
    images, peaks = [], []
    for placement in (Placement.DEVICE, Placement.ON_DEMAND, Placement.STREAMED):
        pool = Pool(rows, device="cpu", budget_bytes=2**30)
        changed = {"placement": placement, "groups": "leaf" if placement is Placement.STREAMED else None}
        parts = [
            part.model_copy(update=changed) if part.name == "transformer" else part for part in resident.components
        ]
        plan = resident.model_copy(update={"components": tuple(parts)})
        monkeypatch.setattr(pool.plan_selector, "choose", lambda *_, plan=plan: plan)
        files, receipt = complete_job(job, pool, storage)
        images.append(decode_pixels(files[0]))
        assert receipt.memory is not None
        assert receipt.memory.peak_bytes is not None
        peaks.append(receipt.memory.peak_bytes)
    assert np.array_equal(images[0], images[1])
    assert np.array_equal(images[0], images[2])
    packed = _denoiser(found).packed_bytes
    assert peaks[2] < peaks[0] - 0.5 * packed


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_of_all_kinds_act_as_on_the_values_and_leave_no_trace(
    kind: str, storage: Storage, tmp_path: Path
) -> None:
    """DoRA among them, which is computed from the values that the packed ones stand for."""
    loras = [{"name": "kinds"}, {"name": "lora", "scale": 0.5}]
    rows, plain = _rows(tmp_path, quantization=kind), _rows(tmp_path)
    own, other = Pool(rows, device="cpu"), Pool(plain, device="cpu")
    job, adapted = make_job(rows, "flux", **SMALL), make_job(rows, "flux", **SMALL, loras=loras)
    before, after = generate_pixels(job, own, storage), generate_pixels(adapted, own, storage)
    expected = generate_pixels(adapted, other, storage)
    assert np.abs(after - before).mean() > 3 * np.abs(after - expected).mean()
    assert np.array_equal(before, generate_pixels(job, own, storage))


@pytest.mark.parametrize(("kind", "error"), [("bitsandbytes_nf4", 0.12), ("bitsandbytes_int8", 0.012)])
def test_unpacked_values_are_nearly_those_that_were_packed(kind: str, error: float, tmp_path: Path) -> None:
    rows = _rows(tmp_path, quantization=kind)
    row = rows.model("one")
    layer = (
        load_model(rows, row, get_family("flux"), SOURCE, torch.bfloat16)
        .transformer.transformer_blocks[0]
        .attn.to_q
    )
    own = diffusers.FluxTransformer2DModel.from_pretrained(SOURCE, subfolder="transformer", dtype=torch.bfloat16)
    values = own.transformer_blocks[0].attn.to_q.weight.float()
    difference = (packed_weights.unpack(layer).float() - values).norm() / values.norm()
    assert 0 < difference < error
    assert (layer.out_features, layer.in_features) == tuple(values.shape)


def test_the_block_of_the_gpu_check_runs(tmp_path: Path) -> None:
    setup = prepare(tmp_path, time.monotonic() + 600, tiny=True)
    rows = list(bitsandbytes(setup))
    assert [(row["quantization"], row["from"]) for row in rows] == [
        (kind, origin) for kind in KINDS for origin in ("row", "folder")
    ]
    assert all(0 < row["difference"] < 40 for row in rows)
