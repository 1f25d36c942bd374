"""Kernels that the operator chooses: what is compiled, when it is not, and what the receipt says of it."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from contracts.catalogue.catalogue import Catalogue
from contracts.memory.plan import Placement
from contracts.memory.sizes.component import Role
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support.combinations import usual_or_all
from tests.support.jobs import complete_job, decode_pixels, make_job, run_jobs
from worker.generation.trial import warm_up
from worker.pool.pool import Pool
from worker.runtime.kernel_options import KernelOptions
from worker.runtime.kernels import prefer

#: Compiles and runs the graphs without a C++ compiler.
COMPILED = KernelOptions(compile="blocks", compile_backend="eager")


def _pool(catalogue: Catalogue, choice: KernelOptions, **options: Any) -> Pool:
    torch._dynamo.reset()
    return Pool(catalogue, device="cpu", kernels=choice, **options)


def _graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


@pytest.fixture(scope="module")
def compiling(catalogue: Catalogue) -> Pool:
    """What its denoisers compile stays compiled for the next test."""
    return _pool(catalogue, COMPILED)


@pytest.mark.parametrize("family", usual_or_all("flux", ["flux", "sdxl"]))
def test_after_the_warm_up_and_the_first_lora_neither_prompts_nor_adapters_nor_fast_jobs_compile_anything(
    family: str, catalogue: Catalogue, compiling: Pool, pool: Pool, storage: Storage
) -> None:
    bare = make_job(catalogue, family, num_inference_steps=2)
    counters.clear()
    warm_up(compiling, bare.model)
    after = _graphs()
    # Each kind of block is compiled once or, where one comes with less, twice; and whole.
    assert 0 < after <= 3
    assert not counters["graph_break"]
    adapted, stronger = (
        make_job(catalogue, family, num_inference_steps=2, loras=[{"name": f"{family}-lora", "scale": scale}])
        for scale in (1.0, 2.0)
    )
    fast = make_job(catalogue, family, num_inference_steps=8, speed="fast")
    made = {bare.model_dump_json(): complete_job(bare, compiling, storage)[0]}
    assert _graphs() == after
    complete_job(adapted, compiling, storage)
    # The same blocks, once more with slots for LoRAs.
    assert (after := _graphs()) <= 6
    for job in (bare, adapted, stronger, fast, make_job(catalogue, family, prompt="a square"), bare):
        files, receipt = complete_job(job, compiling, storage)
        expected, _ = complete_job(job, pool, storage)
        assert receipt.kernels["compile"] == "blocks, eager"
        assert np.abs(decode_pixels(files[0]) - decode_pixels(expected[0])).max() <= 1
        assert made.setdefault(job.model_dump_json(), files) == files
    assert _graphs() == after
    assert not counters["graph_break"]
    model = compiling.ready(adapted, 1)
    assert model.placement.plan is not None
    planned = next(part for part in model.placement.plan.components if part.role is Role.LORA_SLOTS)
    slot_bytes = model.resident_bytes - model.placement.resident_bytes - model.adapters.resident_bytes
    assert 0.6 * planned.device_bytes < slot_bytes <= planned.device_bytes


def test_jobs_with_different_loras_share_compiled_calls_which_serve_other_loras_too(
    catalogue: Catalogue, compiling: Pool, pool: Pool, storage: Storage
) -> None:
    def jobs(*scales: float) -> list[JobParameters]:
        loras = [[{"name": "flux-lora", "scale": scale}] if scale else [] for scale in scales]
        return [make_job(catalogue, "flux", num_inference_steps=2, batchable=True, loras=own) for own in loras]

    first = jobs(0.0, 1.0, -1.0)
    for job, outcome in zip(first, run_jobs(first, compiling, storage), strict=True):
        assert outcome.receipt.kernels["compile"] == "blocks, eager"
        assert outcome.receipt.mean_rows == 3
        alone, _ = complete_job(job, pool, storage)
        together = decode_pixels(storage.read(outcome.stored[0].key))
        assert np.abs(together - decode_pixels(alone[0])).max() <= 1
    before = _graphs()
    for outcome in run_jobs(jobs(0.5, 2.0, 0.0), compiling, storage):
        assert outcome.receipt.kernels["compile"] == "blocks, eager"
    assert _graphs() == before


def test_loras_that_have_no_room_in_slots_run_uncompiled_with_the_bytes_that_they_have_without_compilation(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    job = make_job(catalogue, "flux", num_inference_steps=1, loras=[{"name": "flux-lora"}])
    expected, _ = complete_job(job, pool, storage)
    compiling = Pool(catalogue, device="cpu", kernels=replace(COMPILED, slot_rank=1))
    counters.clear()
    files, receipt = complete_job(job, compiling, storage)
    assert receipt.kernels["compile"] == "off: adapters are active (rank 4, of 1)"
    assert np.array_equal(decode_pixels(files[0]), decode_pixels(expected[0]))
    assert _graphs() == 0


def test_compiled_blocks_are_switched_on_for_one_call_and_freed_with_their_model(
    catalogue: Catalogue, compiling: Pool, storage: Storage
) -> None:
    job = make_job(catalogue, "flux", num_inference_steps=1)
    complete_job(job, compiling, storage)
    model = compiling.ready(job, 1)
    blocks = list(model.base.transformer.transformer_blocks)
    assert all(block._compiled_call_impl is None for block in blocks)
    assert compiling.report()["models"][job.model]["kernels"]["compile"] == "blocks, eager"
    gone = weakref.ref(blocks[0])
    del model, blocks
    compiling.drop(job.model)
    gc.collect()
    assert gone() is None


def test_a_denoiser_on_demand_compiles_no_more_for_its_moving_weights_and_replays_no_graphs(
    catalogue: Catalogue, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = KernelOptions(compile="graphs", compile_backend="eager")
    # What the tests before have compiled is used here.
    job, compiling = make_job(catalogue, "flux", num_inference_steps=2), Pool(catalogue, "cpu", kernels=graphs)
    compiling.model(job.model)
    plan = compiling.plan_selector.choose(job, 1)
    parts = tuple(
        part.model_copy(update={"placement": Placement.ON_DEMAND}) if part.name == "transformer" else part
        for part in plan.components
    )
    monkeypatch.setattr(
        compiling.plan_selector, "choose", lambda *_: plan.model_copy(update={"components": parts})
    )
    counters.clear()
    found = []
    for _ in range(2):
        _, receipt = complete_job(job, compiling, storage)
        assert receipt.kernels["compile"] == "blocks, eager; no graphs: denoiser on demand"
        found.append(_graphs())
    assert found[0] == found[1] <= 3


def test_a_streamed_denoiser_and_a_counted_budget_run_uncompiled(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    job = make_job(catalogue, "flux")
    expected, _ = complete_job(job, pool, storage)
    compiling = _pool(catalogue, COMPILED, budget_bytes=2**30)
    _, receipt = complete_job(job, compiling, storage)
    assert receipt.kernels["compile"] == "off: the CPU's memory is counted"
    while compiling.step_down(job, 1):
        pass
    files, receipt = complete_job(job, compiling, storage)
    assert "streamed" in receipt.placement.values()
    assert receipt.kernels["compile"] == "off: denoiser streamed"
    # The files differ: their metadata say why nothing was compiled.
    assert np.array_equal(decode_pixels(files[0]), decode_pixels(expected[0]))


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_channels_last_lays_out_what_convolves_and_survives_every_home(
    family: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    job = make_job(catalogue, family, num_inference_steps=1)
    lying = _pool(catalogue, KernelOptions(channels_last="on"))
    files, receipt = complete_job(job, lying, storage)
    assert receipt.kernels == {"attention": "auto", "channels_last": "on", "compile": "off"}
    assert _lies_last(lying, job, "vae")
    assert _lies_last(lying, job, "unet") is (family == "sdxl")
    lying.model(job.model).move_to_host()
    assert _lies_last(lying, job, "vae")
    again, _ = complete_job(job, lying, storage)
    assert again == files
    expected, plain = complete_job(job, pool, storage)
    assert plain.kernels["channels_last"] == "off"
    assert np.abs(decode_pixels(files[0]) - decode_pixels(expected[0])).max() <= 1


def _lies_last(pool: Pool, job: JobParameters, component: str) -> bool:
    part = pool.ready(job, 1).base.components.get(component, torch.nn.Identity())
    kernels = [values for values in part.parameters() if values.dim() == 4 and min(values.shape) > 1]
    return bool(kernels) and all(one.is_contiguous(memory_format=torch.channels_last) for one in kernels)


@pytest.mark.parametrize("kernel", ["cudnn", "flash", "efficient", "math"])
def test_an_attention_kernel_that_cannot_run_here_gives_way_to_the_next(
    kernel: Any, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    job = make_job(catalogue, "pixart", num_inference_steps=1)
    with prefer(kernel):
        files, receipt = complete_job(job, _pool(catalogue, KernelOptions(attention=kernel)), storage)
    assert receipt.kernels["attention"] == kernel
    expected, _ = complete_job(job, pool, storage)
    assert np.abs(decode_pixels(files[0]) - decode_pixels(expected[0])).max() <= 1
    flags = torch.backends.cuda
    assert flags.flash_sdp_enabled()  # type: ignore[no-untyped-call]
    assert flags.mem_efficient_sdp_enabled()  # type: ignore[no-untyped-call]


def test_a_denoiser_in_fp8_runs_uncompiled_and_the_receipt_says_so(
    catalogue: Catalogue, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Casting layer by layer would break every block's graph at each layer."""
    job, compiling = make_job(catalogue, "flux", num_inference_steps=1), _pool(catalogue, COMPILED)
    compiling.model(job.model)
    plan = compiling.plan_selector.choose(job, 1).model_copy(update={"fp8": True})
    monkeypatch.setattr(compiling.plan_selector, "choose", lambda *_: plan)
    counters.clear()
    _, receipt = complete_job(job, compiling, storage)
    assert receipt.kernels["compile"] == "off: denoiser in fp8"
    assert _graphs() == 0


def test_a_back_end_that_cannot_compile_here_is_found_at_start(catalogue: Catalogue, storage: Storage) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    torch._dynamo.reset()
    torch._dynamo.register_backend(fail, name="broken")
    broken = Pool(catalogue, device="cpu", kernels=KernelOptions(compile="blocks", compile_backend="broken"))
    _, receipt = complete_job(make_job(catalogue, "flux"), broken, storage)
    assert receipt.kernels["compile"] == "off: RuntimeError: no C++ compiler"
