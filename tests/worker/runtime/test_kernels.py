"""Kernels that the operator chooses: what is compiled, when it is not, and what the receipt says of it."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from contracts.catalogue.catalogue import Catalogue
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support.jobs import complete_job, decode_pixels, make_job
from worker.generation.warm_up import warm_up
from worker.pool.pool import Pool
from worker.runtime.kernel_options import KernelOptions
from worker.runtime.kernels import prefer

#: Compiles and runs the graphs without a C++ compiler.
COMPILED = KernelOptions(compile="blocks", compile_backend="aot_eager")


def _pool(catalogue: Catalogue, choice: KernelOptions, **options: Any) -> Pool:
    torch._dynamo.reset()
    return Pool(catalogue, device="cpu", kernels=choice, **options)


def _graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_after_the_rehearsal_neither_prompts_nor_adapters_nor_fast_jobs_compile_anything(
    family: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    compiling = _pool(catalogue, COMPILED)
    bare = make_job(catalogue, family)
    counters.clear()
    warm_up(compiling, storage, bare.model)
    after = _graphs()
    # Each kind of block is compiled once or, where one comes with less, twice; and whole.
    assert 0 < after <= 3
    assert not counters["graph_break"]
    adapted = make_job(catalogue, family, loras=[{"name": f"{family}-lora"}])
    stronger = make_job(catalogue, family, loras=[{"name": f"{family}-lora", "scale": 2.0}])
    fast = make_job(catalogue, family, num_inference_steps=8, speed="fast")
    made: dict[str, list[bytes]] = {}
    for job in (bare, adapted, stronger, fast, make_job(catalogue, family, prompt="a blue square"), bare):
        files, receipt = complete_job(job, compiling, storage)
        expected, _ = complete_job(job, pool, storage)
        difference = np.abs(decode_pixels(files[0]) - decode_pixels(expected[0])).max()
        if job.loras:
            # Nothing is compiled while adapters act, and what is not compiled is what it was.
            assert receipt.kernels["compile"] == "off"
            assert difference == 0
        else:
            assert receipt.kernels["compile"] == "blocks, aot_eager"
            assert difference <= 1
        assert made.setdefault(job.model_dump_json(), files) == files
    assert _graphs() == after


def test_compiled_blocks_are_so_for_a_batch_at_a_time_and_leave_with_their_model(
    catalogue: Catalogue, storage: Storage
) -> None:
    compiling = _pool(catalogue, COMPILED)
    job = make_job(catalogue, "flux")
    complete_job(job, compiling, storage)
    model = compiling.ready(job, 1)
    blocks = list(model.base.transformer.transformer_blocks)
    assert all(block._compiled_call_impl is None for block in blocks)
    assert compiling.report()["models"][job.model]["kernels"]["compile"] == "blocks, aot_eager"
    gone = weakref.ref(blocks[0])
    del model, blocks
    compiling.drop(job.model)
    gc.collect()
    assert gone() is None


def test_a_streamed_denoiser_and_a_counted_budget_go_with_it(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    job = make_job(catalogue, "flux")
    expected, _ = complete_job(job, pool, storage)
    compiling = _pool(catalogue, COMPILED, budget_bytes=2**30)
    _, receipt = complete_job(job, compiling, storage)
    assert receipt.kernels["compile"] == "blocks, aot_eager"
    while compiling.step_down(job, 1):
        pass
    files, receipt = complete_job(job, compiling, storage)
    assert "streamed" in receipt.placement.values()
    assert (files, receipt.kernels["compile"]) == (expected, "off")


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_channels_last_lays_out_what_convolves_and_survives_every_home(
    family: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    job = make_job(catalogue, family)
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
    job = make_job(catalogue, "sd3")
    with prefer(kernel):
        files, receipt = complete_job(job, _pool(catalogue, KernelOptions(attention=kernel)), storage)
    assert receipt.kernels["attention"] == kernel
    expected, _ = complete_job(job, pool, storage)
    assert np.abs(decode_pixels(files[0]) - decode_pixels(expected[0])).max() <= 1
    flags = torch.backends.cuda
    assert flags.flash_sdp_enabled()  # type: ignore[no-untyped-call]
    assert flags.mem_efficient_sdp_enabled()  # type: ignore[no-untyped-call]
