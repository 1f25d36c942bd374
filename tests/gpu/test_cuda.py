"""The warm worker on a CUDA device: images right, T5 beside the device, peaks as planned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.full_size import write_catalogue, write_checkpoint
from bench.trials import Trial, make, parameters
from contracts.catalogue.reader import read_catalogue
from contracts.memory.moves import gives_same_image
from contracts.memory.plan import Placement
from contracts.memory.policy import Policy
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.counts.architectures import read_architectures
from models.judge import judge
from worker.offload.upload import uploader_of
from worker.pool.plan_selector import PlanSelector
from worker.pool.pool import Pool
from worker.runtime.energy import open_counter
from worker.runtime.kernel_options import Compile, KernelOptions

GIB = 2**30
FAMILIES = ("sdxl", "sd3", "flux")
PROMPT = "a red circle on a blue background"


@pytest.fixture(autouse=True)
def device() -> None:
    assert torch.cuda.is_available(), "these tests need a CUDA device"


@pytest.fixture
def trial() -> Trial:
    return Trial(read_catalogue(BUILT_IN_CATALOGUE), "cuda", side=64, steps=12)


def test_the_cards_counter_grows_while_it_computes() -> None:
    read = open_counter(torch.device("cuda:0"))
    assert read is not None
    before, matrix = read(), torch.randn(8192, 8192, device="cuda")
    for _ in range(200):
        matrix = torch.nn.functional.normalize(matrix @ matrix)
    torch.cuda.synchronize()
    assert read() > before


@pytest.mark.parametrize("family", FAMILIES)
def test_the_image_shows_what_the_prompt_says(trial: Trial, family: str) -> None:
    spec = trial.catalogue.model(f"shapes-{family}")
    (image,) = make(trial, Pool(trial.catalogue, device="cuda"), spec, seed=0, prompt=PROMPT).images
    verdict = judge(image.convert("RGB"))
    assert (verdict.colour, verdict.background) == ("red", "blue")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_receipt_gives_the_same_image(trial: Trial, family: str) -> None:
    spec, pool = trial.catalogue.model(f"shapes-{family}"), Pool(trial.catalogue, device="cuda")
    first, second = (make(trial, pool, spec, seed=7, prompt=PROMPT).images[0] for _ in range(2))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_t5_on_the_cpu_shows_the_same_image(trial: Trial, family: str) -> None:
    spec = trial.catalogue.model(f"shapes-{family}")
    verdicts = [
        judge(make(trial, Pool(trial.catalogue, device="cuda", policy=policy), spec, 0, prompt=PROMPT).images[0])
        for policy in (Policy(t5="gpu"), Policy(t5="cpu"))
    ]
    assert verdicts[0].colour == verdicts[1].colour
    assert verdicts[0].shape == verdicts[1].shape


@pytest.mark.parametrize("family", FAMILIES)
def test_streamed_and_on_demand_weights_give_the_bits_of_resident_ones(
    trial: Trial, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, pool = trial.catalogue.model(f"shapes-{family}"), Pool(trial.catalogue, device="cuda")
    job = parameters(trial, spec)
    resident = make(trial, pool, spec, seed=3, prompt=PROMPT).images[0]
    best = pool.plan_selector.choose(job, 1)
    every = PlanSelector(trial.catalogue, 2**40, lambda _: 2, Policy(cudnn=True))
    plans = [best]
    while every.knows(spec.id) and every.step_down(job, 1):
        plans.append(every.choose(job, 1))
    same = [plan for plan in plans if gives_same_image(plan, best)]
    assert any(Placement.STREAMED in plan.placements.values() for plan in same)
    for plan in same:
        monkeypatch.setattr(pool.plan_selector, "choose_in", lambda *_, plan=plan: plan)
        for _ in range(2):
            generated = make(trial, pool, spec, seed=3, prompt=PROMPT)
            assert generated.receipt.memory is not None
            assert generated.receipt.memory.plan == plan.name
            assert generated.images[0].tobytes() == resident.tobytes(), plan.name


def test_weights_uploaded_through_two_buffers_are_those_that_were_read() -> None:
    sources = [torch.randn(size) for size in (1, 5_000, 40_000_000)]
    uploader = uploader_of(torch.device("cuda:0"))
    assert uploader is not None
    for _ in range(3):
        assert all(
            torch.equal(copy.cpu(), source) for copy, source in zip(uploader.upload(sources), sources, strict=True)
        )


@pytest.mark.timeout(900)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("how", ["blocks", "graphs", "whole_graphs"])
def test_a_compiled_model_shows_the_same_image_again_and_again(trial: Trial, family: str, how: Compile) -> None:
    torch._dynamo.reset()
    spec, pool = trial.catalogue.model(f"shapes-{family}"), Pool(trial.catalogue, device="cuda")
    # Requests name their steps: by default it has few, so that it may be replayed whole.
    few = spec.model_copy(update={"defaults": {**spec.defaults, "num_inference_steps": 4}})
    models = tuple(few if row.id == spec.id else row for row in trial.catalogue.models)
    catalogue = trial.catalogue.model_copy(update={"models": models})
    compiling = Pool(catalogue, device="cuda", kernels=KernelOptions(compile=how))
    plain = make(trial, pool, spec, seed=3, prompt=PROMPT)
    images = [make(trial, compiling, spec, seed=3, prompt=PROMPT) for _ in range(3)]
    named = "whole graph" if how == "whole_graphs" else how
    assert all(one.receipt.kernels["compile"] == f"{named}, inductor" for one in images)
    assert images[1].images[0].tobytes() == images[2].images[0].tobytes()
    verdicts = [judge(one.images[0]) for one in (plain, images[2])]
    assert (verdicts[0].colour, verdicts[0].shape) == (verdicts[1].colour, verdicts[1].shape)
    fast = make(trial, compiling, spec, seed=3, prompt=PROMPT, speed="fast")
    assert judge(fast.images[0]).colour == verdicts[0].colour


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("budget_gib", [6, 8, 12])
def test_sdxls_measured_peak_is_within_15_percent_of_the_plans(tmp_path: Path, budget_gib: int) -> None:
    architecture = next(one for one in read_architectures() if one.id == "sdxl")
    write_checkpoint(architecture, tmp_path / "sdxl", "cuda", torch.bfloat16)
    catalogue = read_catalogue(write_catalogue({"sdxl": architecture}, tmp_path))
    trial = Trial(catalogue, "cuda", side=1024, steps=4)
    pool = Pool(catalogue, device="cuda", budget_bytes=budget_gib * GIB)
    memory = make(trial, pool, catalogue.model("sdxl"), seed=0).receipt.memory
    assert memory is not None
    assert memory.peak_bytes is not None
    assert memory.peak_bytes <= budget_gib * GIB
    assert 0.85 <= memory.peak_bytes / memory.planned_bytes <= 1.15
