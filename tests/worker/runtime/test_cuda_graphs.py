"""Whole denoisers as CUDA graphs: what is recorded, what is not, and that no result lies in the graphs' memory.

No device is here: a stand-in for the back end counts what it is given to record, and spoils all earlier results
when a new step begins, as torch's CUDA graph trees may.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch._dynamo.utils import counters

from contracts.catalogue.catalogue import Catalogue, LoraSpec
from contracts.catalogue.families import Mode
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support.jobs import complete_job, decode_pixels, make_job, run_jobs
from worker.pool.pool import Pool
from worker.runtime import cuda_graphs
from worker.runtime.cuda_graphs import GraphPool
from worker.runtime.kernel_options import KernelOptions
from worker.runtime.kernels import Kernels

_WHOLE = "whole graph, recorder"


class Recorder:
    """A back end of torch.compile whose results lie in memory that the next step overwrites.

    Attributes:
        copied: of each recorded graph, the shapes that are copied for each replay: weights are not.
        largest: nodes of a graph beyond which it fails.
    """

    def __init__(self) -> None:
        self.copied: list[list[tuple[int, ...]]] = []
        self.largest = 2000
        self._kept: list[torch.Tensor] = []

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any, **options: Any) -> Any:
        if len(graph.graph.nodes) > self.largest:
            raise RuntimeError("too large")
        self.copied.append([
            tuple(node.meta["example_value"].shape)
            for node in graph.graph.find_nodes(op="placeholder")
            if "_dynamo_static_input_type" not in node.meta.get("tensor_dict", ())
        ])  # fmt: skip

        def run(*given: Any) -> Any:
            results = graph(*given)
            self._kept += [one for one in results if isinstance(one, torch.Tensor)]
            return results

        return run if options.get("mode") == "reduce-overhead" else graph.forward

    def begin_step(self) -> None:
        """Overwrite all that was returned."""
        for result in self._kept:
            result.fill_(float("nan"))
        self._kept.clear()


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    torch._dynamo.reset()
    counters.clear()
    made = Recorder()
    torch._dynamo.register_backend(made, name="recorder")
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", made.begin_step)
    yield made
    torch._dynamo.backends.registry._COMPILER_FNS.pop("recorder")


# -- a denoiser of two layers ---------------------------------------------------------------------------


class Block(torch.nn.Linear):
    """What is repeated."""


class Denoiser(torch.nn.Module):
    """Two blocks, with something before and after them."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList([Block(4, 4), Block(4, 4)])

    def forward(self, sample: torch.Tensor, scale: float = 1.0) -> tuple[torch.Tensor]:
        for block in self.blocks:
            sample = block(sample * scale).relu()
        return (sample + 1,)


@pytest.fixture
def denoiser() -> Denoiser:
    return Denoiser().eval()


def _kernels(denoiser: Denoiser, compile: Any = "whole_graphs", **limits: str) -> Kernels:  # noqa: A002
    kernels = Kernels(KernelOptions(compile=compile, compile_backend="recorder"), "toy", GraphPool())
    kernels.compile(denoiser, ["Block"], **limits)
    return kernels


def _run(kernels: Kernels, denoiser: Denoiser, *shape: int, scale: float = 1.0, **limits: Any) -> str:
    """Call it twice, compare with what it computes uncompiled; returns what the receipt says."""
    with torch.inference_mode():
        sample = torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape)
        expected = denoiser(sample, scale=scale)[0]
        results = []
        for _ in range(2):
            with kernels.running(**limits):
                results.append(denoiser(sample, scale=scale)[0])
    assert all(torch.equal(result, expected) for result in results)
    return kernels.used["compile"]


def test_one_whole_graph_is_recorded_for_each_layout_of_inputs_and_value_and_its_results_are_the_callers(
    recorder: Recorder, denoiser: Denoiser
) -> None:
    kernels = _kernels(denoiser)
    for shape, graphs in (((1, 4), 1), ((2, 4), 2), ((2, 3, 4), 3), ((1, 4), 3)):
        assert _run(kernels, denoiser, *shape) == _WHOLE
        assert len(recorder.copied) == graphs
    assert _run(kernels, denoiser, 1, 4, scale=2.0) == _WHOLE
    # Weights are replayed where they are; nothing but the input is copied.
    assert recorder.copied == [[(1, 4)], [(2, 4)], [(2, 3, 4)], [(1, 4)]]
    assert not counters["graph_break"]


def test_beyond_the_most_kinds_of_calls_blocks_are_replayed_and_the_kinds_that_are_recorded_still_are(
    recorder: Recorder, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_graphs, "_MAX_KINDS", 1)
    kernels = _kernels(denoiser)
    assert _run(kernels, denoiser, 1, 4) == _WHOLE
    assert _run(kernels, denoiser, 2, 4) == "graphs, recorder; not whole: 1 kinds of calls are recorded"
    assert _run(kernels, denoiser, 1, 4) == _WHOLE
    # Variants of what is compiled are kinds of their own.
    assert _run(kernels, denoiser, 1, 4, variant=1).endswith("1 kinds of calls are recorded")


def test_what_rules_a_whole_graph_out_leaves_what_can_be_compiled(recorder: Recorder, denoiser: Denoiser) -> None:
    kernels = _kernels(denoiser)
    assert _run(kernels, denoiser, 1, 4, uncompiled="denoiser streamed") == "off: denoiser streamed"
    assert recorder.copied == []
    assert _run(kernels, denoiser, 1, 4, no_graphs="denoiser on demand") == (
        "blocks, recorder; no graphs: denoiser on demand"
    )
    assert _run(kernels, denoiser, 1, 4, not_whole="adapters act") == "graphs, recorder; not whole: adapters act"
    assert _run(_kernels(denoiser, not_whole="28 steps"), denoiser, 1, 4).endswith("; not whole: 28 steps")
    assert _run(_kernels(denoiser, "graphs", not_whole="28 steps"), denoiser, 1, 4) == "graphs, recorder"
    assert _run(_kernels(denoiser, refused="denoiser in fp8"), denoiser, 1, 4) == "off: denoiser in fp8"
    assert _run(kernels, denoiser, 1, 4) == _WHOLE
    assert "forward" not in vars(denoiser)


def test_a_denoiser_that_cannot_be_compiled_whole_is_tried_once_and_its_blocks_are_replayed(
    recorder: Recorder, denoiser: Denoiser
) -> None:
    recorder.largest = 4
    kernels = _kernels(denoiser)
    for shape in ((1, 4), (2, 4)):
        expected = "graphs, recorder; not whole: RuntimeError: too large"
        assert _run(kernels, denoiser, *shape) == expected
    recorder.largest = 2000
    assert _run(kernels, denoiser, 1, 4) == expected


def test_after_memory_ran_out_in_a_whole_graph_blocks_are_replayed(
    recorder: Recorder, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = _kernels(denoiser)
    assert kernels._whole is not None

    def run_out(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(kernels._whole, "_compiled", run_out)
    with pytest.raises(torch.OutOfMemoryError), kernels.running():
        denoiser(torch.ones(1, 4))
    assert _run(kernels, denoiser, 1, 4) == "graphs, recorder; not whole: memory ran out"


def test_graphs_keep_what_the_largest_needs_for_as_long_as_a_model_has_any(
    recorder: Recorder, denoiser: Denoiser
) -> None:
    pool = GraphPool()
    kernels = Kernels(KernelOptions(compile="graphs", compile_backend="recorder"), "toy", pool)
    kernels.compile(denoiser, ["Block"])
    _run(kernels, denoiser, 1, 4, no_graphs="denoiser on demand", graph_bytes=5)
    assert pool.bytes == 0
    for size in (5, 3):
        _run(kernels, denoiser, 1, 4, graph_bytes=size)
    assert (pool.bytes, pool.beside(), pool.beside(4, None), pool.beside(6)) == (5, 5, 1, 0)
    del kernels
    gc.collect()
    assert pool.bytes == 0


# -- models ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few_steps(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """Models of 4 steps, and a LoRA that changes a layer outside of what is repeated."""
    file = tmp_path_factory.mktemp("lora") / "outside.safetensors"
    layer = "transformer.context_embedder"
    save_file({f"{layer}.lora_A.weight": torch.ones(1, 128), f"{layer}.lora_B.weight": torch.ones(64, 1)}, file)
    lora = LoraSpec(id="outside", family="sd3", source=str(file))
    rows = tuple(
        row.model_copy(update={"defaults": {**row.defaults, "num_inference_steps": 4}}) for row in catalogue.models
    )
    return catalogue.model_copy(update={"models": rows, "loras": (*catalogue.loras, lora)})


def _is_close(job: JobParameters, file: bytes, pool: Pool, storage: Storage) -> bool:
    expected = decode_pixels(complete_job(job, pool, storage)[0][0])
    return bool(np.abs(decode_pixels(file) - expected).max() <= 1)


def test_jobs_of_a_model_of_few_steps_replay_it_whole_alone_together_with_controls_and_predicted_steps(
    few_steps: Catalogue, pool: Pool, storage: Storage, recorder: Recorder
) -> None:
    options = KernelOptions(compile="whole_graphs", compile_backend="recorder")
    compiling = Pool(few_steps, device="cpu", kernels=options)
    recorder.copied.clear()  # of the check at start
    plain, other = (make_job(few_steps, "sd3", prompt=prompt) for prompt in ("a square", "two circles"))
    fast = make_job(few_steps, "sd3", num_inference_steps=8, speed="fast")
    # Step by step in turn, each alone in its calls: results lie idle while the others' are computed.
    in_turn = [plain, fast, other]
    for job, outcome in zip(in_turn, run_jobs(in_turn, compiling, storage), strict=True):
        assert outcome.receipt.kernels["compile"] == _WHOLE
        assert _is_close(job, storage.read(outcome.stored[0].key), pool, storage)
    assert len(recorder.copied) == 1
    assert not counters["graph_break"]
    together = [
        make_job(few_steps, "sd3", prompt=prompt, batchable=True) for prompt in ("a square", "two circles")
    ]
    for job, outcome in zip(together, run_jobs(together, compiling, storage), strict=True):
        assert outcome.receipt.mean_rows == 4
        assert outcome.receipt.kernels["compile"] == _WHOLE
        assert _is_close(job, storage.read(outcome.stored[0].key), pool, storage)
    assert len(recorder.copied) == 2
    controlled = make_job(few_steps, "sd3", Mode.CONTROLNET)
    adapted = make_job(few_steps, "sd3", loras=[{"name": "sd3-lora", "scale": 4.0}])
    for job in (controlled, adapted, plain):
        files, receipt = complete_job(job, compiling, storage)
        assert receipt.kernels["compile"] == _WHOLE
        assert _is_close(job, files[0], pool, storage)
    _, receipt = complete_job(
        make_job(few_steps, "sd3", loras=[{"name": "outside"}], batchable=True), compiling, storage
    )
    assert receipt.kernels["compile"] == "graphs, recorder; not whole: adapters act outside of its blocks"
    recorder.copied = recorder.copied[:4]
    # Neither weights nor slots of LoRAs are copied for a replay: only latents, time and embeddings, and residuals.
    assert [len(shapes) for shapes in recorder.copied] == [4, 4, 5, 4]


def test_graphs_of_a_model_take_room_on_the_device_until_a_plan_needs_it_and_end_where_weights_come_and_go(
    few_steps: Catalogue, storage: Storage, recorder: Recorder
) -> None:
    options = KernelOptions(compile="whole_graphs", compile_backend="recorder")
    compiling = Pool(few_steps, device="cpu", kernels=options, host_bytes=2**30)
    wide = make_job(few_steps, "sd3", width=128, num_inference_steps=1)
    model = compiling.model(wide.model)
    unused = compiling.unused_bytes
    complete_job(wide, compiling, storage)
    plan = model.placement.plan
    assert plan is not None
    assert plan.graph_bytes
    assert unused - compiling.unused_bytes == plan.graph_bytes
    for _ in range(4):
        model.move_to_host()
        _, receipt = complete_job(wide, compiling, storage)
    assert receipt.kernels["compile"] == "blocks, recorder; no graphs: the denoiser came to the device 5 times"
    # Graphs of another size that leave no room are dropped, and not a weight is moved for them.
    assert unused - compiling.unused_bytes == plan.graph_bytes
    model.kernels._graph_pool.note(model.kernels, unused)
    _, receipt = complete_job(wide, compiling, storage)
    assert receipt.memory is None or receipt.memory.plan == plan.name
    assert compiling.unused_bytes == unused


def test_where_the_memory_of_a_cpu_is_counted_nothing_is_compiled(
    few_steps: Catalogue, storage: Storage, recorder: Recorder
) -> None:
    options = KernelOptions(compile="whole_graphs", compile_backend="recorder")
    compiling = Pool(few_steps, device="cpu", kernels=options, budget_bytes=2**30)
    _, receipt = complete_job(make_job(few_steps, "sd3"), compiling, storage)
    assert receipt.kernels["compile"] == "off: the CPU's memory is counted"
