"""Hashes of the latents after each step: the same for the same job, and others for whatever else was computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from safetensors.torch import load

from contracts.catalogue.catalogue import Catalogue
from contracts.provenance.receipts.merkle import hash_leaf, merkle_root
from contracts.provenance.receipts.step_comparison import first_difference
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from contracts.storage.local import LocalStorage
from tests.support.jobs import JoinAll, complete_job, make_job
from worker.engine.engine import Engine
from worker.engine.job import Job, JobInFlight
from worker.generation.alone import Unwatched
from worker.generation.generate import JobGeneration
from worker.generation.results.outputs import JobResult
from worker.generation.steps.hashes import StepHashes
from worker.pool.pool import Pool

Hashes = Sequence[Sequence[str]]


def hashes_of(pool: Pool, storage: Storage, *jobs: JobParameters) -> Hashes:
    """Of the first job's images, made together with the others."""
    engine = Engine(pool, JoinAll())

    def work(flight: JobInFlight) -> JobResult:
        return JobGeneration(flight, engine, pool, storage, Unwatched(), hashes_steps=True).run()

    flights = [engine.start(Job(f"{n}", job, exact=not job.batchable), work) for n, job in enumerate(jobs)]
    while engine.jobs:
        engine.tick()
    engine.close()
    result: JobResult = flights[0].result
    assert result.status == "generated", result
    return result.step_hashes


@pytest.fixture(scope="module")
def steps(
    pool: Pool, catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Sequence[str]]:
    storage = LocalStorage(tmp_path_factory.mktemp("storage"))
    lora = [{"name": "sdxl-lora", "scale": 0.5}]

    def run(*others: JobParameters, **fields: Any) -> Sequence[str]:
        job = make_job(catalogue, "sdxl", **{"num_inference_steps": 2, "loras": lora, **fields})
        return hashes_of(pool, storage, job, *others)[0]

    return run


@pytest.fixture(scope="module")
def honest(steps: Callable[..., Sequence[str]]) -> Sequence[str]:
    return steps()


def test_an_honest_image_is_never_accused(steps: Callable[..., Sequence[str]], honest: Sequence[str]) -> None:
    steps(prompt="what ran meanwhile", seed=3)
    assert len(honest) == 2
    assert first_difference(honest, steps(), range(1, 3)) is None


@pytest.mark.parametrize(
    ("forged", "step"),
    [
        ({"num_inference_steps": 1}, 1),
        ({"prompt": "a red circles"}, 1),
        ({"loras": [{"name": "sdxl-lora", "scale": 0.51}]}, 1),
    ],
    ids=["fewer steps", "another prompt", "another LoRA scale"],
)
def test_what_was_made_otherwise_than_its_receipt_says_is_found(
    forged: dict[str, object], step: int, steps: Callable[..., Sequence[str]], honest: Sequence[str]
) -> None:
    made = steps(**forged)
    assert first_difference(made, honest, range(1, 3)) == step
    assert first_difference(made, honest, [2]) == 2  # by one random step, too


@pytest.fixture
def denoiser(pool: Pool, catalogue: Catalogue) -> Iterator[torch.nn.Module]:
    """The shared model's denoiser, as it was afterwards."""
    denoiser = pool.model(make_job(catalogue, "sdxl").model).denoiser
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    yield denoiser
    denoiser.load_state_dict(before)


def test_a_neighbour_in_a_joined_call_is_found_where_it_changes_a_bit(
    steps: Callable[..., Sequence[str]], honest: Sequence[str], catalogue: Catalogue, denoiser: torch.nn.Module
) -> None:
    """Kernels may round otherwise with more rows; which do, depends on the machine, so here one surely does."""
    lora = [{"name": "sdxl-lora", "scale": 0.5}]
    neighbour = make_job(catalogue, "sdxl", num_inference_steps=2, seed=20, batchable=True, loras=lora)

    def round_otherwise(_: torch.nn.Module, __: Any, output: Any) -> Any:
        return tuple(part * (1 + 1e-6) if len(part) > 2 else part for part in output)

    hook = denoiser.register_forward_hook(round_otherwise)
    try:
        assert first_difference(steps(neighbour, batchable=True), honest, range(1, 3)) == 1
        assert first_difference(steps(), honest, range(1, 3)) is None
    finally:
        hook.remove()


def test_other_weights_and_weights_rounded_to_fp8_are_found(
    steps: Callable[..., Sequence[str]], honest: Sequence[str], denoiser: torch.nn.Module
) -> None:
    with torch.no_grad():
        first = next(iter(denoiser.parameters()))
        first.view(-1)[0] += 1e-3
        assert first_difference(steps(), honest, range(1, 3)) == 1
        for weights in denoiser.parameters():
            weights.copy_(weights.to(torch.float8_e4m3fn))
    assert first_difference(steps(), honest, range(1, 3)) == 1


def test_latents_that_are_kept_are_those_that_were_hashed(
    pool: Pool, catalogue: Catalogue, storage: Storage
) -> None:
    job = make_job(catalogue, "sdxl", num_inference_steps=2, num_images=2, keep_latents=True)
    files, receipt = complete_job(job, pool, storage)

    (key,) = [key for key in storage.find("images/") if key.endswith(".safetensors")]
    data = storage.read(key)
    tensors = dict(sorted(load(data).items()))  # safetensors gives them in any order
    assert list(tensors) == ["step.001", "step.002"]
    roots = [
        merkle_root([hash_leaf(step[image].contiguous().numpy().tobytes()) for step in tensors.values()])
        for image in range(2)
    ]
    assert receipt.latents_merkle_root == roots
    kept = receipt.kept_latents
    assert kept is not None
    assert (kept.steps, kept.size_bytes) == (2, len(data))
    assert len(data) <= job.kept_latents_bytes + 2**10
    assert job.max_result_bytes >= len(data) + sum(map(len, files))
    assert b"keep_latents" not in files[0]


def test_each_image_has_hashes_of_its_own_in_any_data_type() -> None:
    hashes, latents = StepHashes(), torch.arange(8.0).reshape(2, 1, 2, 2)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        hashes.begin()
        hashes.end_step(latents.to(dtype))
        data = latents.to(dtype).view(torch.uint8).numpy()
        assert hashes.of_images == [[hash_leaf(row.tobytes())] for row in data]
