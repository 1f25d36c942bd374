"""What the planner guarantees, on published sizes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import pytest

from contracts.byte_sizes import gib
from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.memory.activations import WorkloadShape, peak_values, without_workspaces
from contracts.memory.plan import Placement, Plan
from contracts.memory.planner import candidates, plan, step_down
from contracts.memory.policy import Policy
from contracts.memory.sizes.component import Component, ModelComponents, Role
from contracts.memory.sizes.models import read_components
from contracts.memory.workload import Workload
from contracts.weights.counts.architectures import read_architectures
from tests.support.combinations import ALL

GIB = 2**30


def _architecture(id: str) -> ModelComponents:
    published = next(architecture for architecture in read_architectures() if architecture.id == id)
    model = ModelSpec(id=id, family=published.family, source=published.sources[0])
    components = read_components(Catalogue(root=Path(), default_model=id, models=(model,)), model, 2)
    assert components is not None
    return components


SDXL, SD3, FLUX = _architecture("sdxl"), _architecture("sd3.5-large"), _architecture("flux.1-dev")
BUDGETS = [gib * GIB for gib in (4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 80)]
POLICIES = [Policy(), Policy(allow_fp8=True), Policy(allow_drop_t5=True), Policy(t5="cpu"), Policy(t5="off")]
MODELS = {model.model: model for model in (SDXL, SD3, FLUX)}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
#: Each policy with a model that it acts on.
USUAL = [*zip(("sdxl", "flux.1-dev", "sd3.5-large", "flux.1-dev", "sd3.5-large"), POLICIES, strict=True)]
models_and_policies = pytest.mark.parametrize(("id", "policy"), [*product(MODELS, POLICIES)] if ALL else USUAL)


def workload(model: ModelComponents, side: int = 1024, images: int = 1) -> Workload:
    return Workload(WorkloadShape(side, side, images, guided=model is not FLUX))


@models_and_policies
def test_a_larger_budget_never_costs_more(id: str, policy: Policy) -> None:
    model = MODELS[id]
    plans = [plan(model, workload(model), budget, policy) for budget in BUDGETS]
    fitting = [candidate for candidate in plans if candidate.fits]
    assert fitting == plans[-len(fitting) :]
    costs = [(found.fp8, found.name.count("skipped"), found.extra_seconds) for found in fitting]
    assert min(costs) == costs[-1]
    assert all(found.peak_bytes <= found.budget_bytes for found in fitting)


@models_and_policies
def test_every_step_down_needs_less_and_the_candidates_end(id: str, policy: Policy) -> None:
    model = MODELS[id]
    plans = candidates(model, workload(model), 8 * GIB, policy)
    assert [candidate.peak_bytes for candidate in plans] == sorted(
        (candidate.peak_bytes for candidate in plans), reverse=True
    )
    step, last = plans[0], plans[0]
    while (lower := step_down(plans, step)) is not None:
        assert lower.peak_bytes <= 0.95 * step.peak_bytes or lower is plans[-1]
        assert lower.peak_bytes < step.peak_bytes
        step = last = lower
    assert last is plans[-1]
    assert len({candidate.name for candidate in plans}) == len(plans)


@every_model
def test_the_stated_number_of_images_fits_and_one_more_does_not(model: ModelComponents) -> None:
    for budget in (6 * GIB, 24 * GIB):

        @cache
        def plans_of(images: int, budget: int = budget) -> dict[str, Plan]:
            return {one.name: one for one in candidates(model, workload(model, images=images), budget)}

        for candidate in plans_of(1).values():
            if not candidate.fits:
                assert candidate.batch_images == 0
                continue
            same, more = plans_of(candidate.batch_images), plans_of(candidate.batch_images + 1)
            assert same.get(candidate.name, candidate).fits
            assert candidate.name not in more or not more[candidate.name].fits


def test_everything_is_resident_where_it_fits() -> None:
    best = plan(FLUX, workload(FLUX), 80 * GIB)
    assert best.name == "all resident"
    assert set(best.placements.values()) == {Placement.DEVICE}
    assert best.extra_seconds == 0


def test_t5_is_offloaded_before_what_runs_at_every_step() -> None:
    tight = plan(FLUX, workload(FLUX), 24 * GIB)
    assert tight.placements["transformer"] is Placement.DEVICE
    assert tight.placements["text_encoder_2"] in (Placement.ON_DEMAND, Placement.STREAMED)
    assert "; next better: " in tight.reason


@pytest.mark.parametrize(
    ("policy", "placements"),
    [
        ("gpu", {Placement.DEVICE}),
        ("cpu", {Placement.CPU}),
        ("on_demand", {Placement.ON_DEMAND, Placement.STREAMED}),
        ("off", {Placement.SKIPPED}),
        ("auto", {Placement.DEVICE, Placement.ON_DEMAND, Placement.STREAMED, Placement.CPU}),
    ],
)
def test_the_policy_limits_the_placements_of_t5(policy: str, placements: set[Placement]) -> None:
    plans = candidates(SD3, workload(SD3), 8 * GIB, Policy(t5=policy))  # type: ignore[arg-type]
    assert {candidate.placements["text_encoder_3"] for candidate in plans} <= placements


def test_a_family_that_needs_t5_never_skips_it() -> None:
    for policy in (Policy(t5="off"), Policy(allow_drop_t5=True)):
        for candidate in candidates(FLUX, workload(FLUX), 4 * GIB, policy):
            assert candidate.placements["text_encoder_2"] is not Placement.SKIPPED


def test_fp8_and_skipping_t5_need_permission() -> None:
    for model in (SDXL, SD3, FLUX):
        for candidate in candidates(model, workload(model), 4 * GIB):
            assert not candidate.fp8
            assert Placement.SKIPPED not in candidate.placements.values()


def test_a_refusal_names_the_smallest_plan_and_its_peak() -> None:
    refused = plan(FLUX, workload(FLUX), GIB // 2)
    assert not refused.fits
    assert refused.batch_images == 0
    smallest = candidates(FLUX, workload(FLUX), GIB // 2)[-1]
    assert refused.reason == (
        f"no plan fits 0.5 GiB; the smallest, {smallest.name}, would need {gib(smallest.peak_bytes)}"
    )


def test_little_host_memory_rules_out_offloading_large_components() -> None:
    plans = candidates(FLUX, workload(FLUX), 24 * GIB, Policy(host_bytes=12 * GIB))
    assert max(candidate.host_bytes for candidate in plans) <= 12 * GIB
    assert plans[-1].placements["transformer"] is Placement.DEVICE


def test_controlnets_count() -> None:
    bare = workload(SDXL)
    extra = Component("controlnet:canny", Role.CONTROLNET, 2_500_000_000, 10**8)
    with_control = replace(bare, extras=(extra,))
    lean, rich = (candidates(SDXL, each, 12 * GIB)[0] for each in (bare, with_control))
    assert rich.peak_bytes >= lean.peak_bytes + extra.bytes
    assert rich.placements["controlnet:canny"] is Placement.DEVICE


@every_model
def test_on_a_cuda_card_the_workspace_of_convolutions_counts_beside_their_tensors(model: ModelComponents) -> None:
    plain, cuda = (
        candidates(model, workload(model), 80 * GIB, Policy(cudnn=on_cuda))[0] for on_cuda in (False, True)
    )
    assert (plain.name, cuda.name) == ("all resident", "all resident")
    decode = cuda.stage_bytes["decode"] - plain.stage_bytes["decode"]
    assert 0.8 * GIB < decode < GIB
    assert cuda.stage_bytes["encode"] == plain.stage_bytes["encode"]


@pytest.mark.parametrize("side", [1024, 1536, 2048])
def test_the_decoder_of_sdxls_vae_takes_what_was_measured_on_a_card(side: int) -> None:
    """docs/gpu.md: 2.38, 5.35 and 9.50 GiB beside its weights, on an H100 with cuDNN 9.19."""
    measured = {1024: 2.38, 1536: 5.35, 2048: 9.50}[side] * GIB
    vae = next(component for component in SDXL.components if component.role is Role.VAE)
    shape = WorkloadShape(side, side)
    planned = 2 * peak_values(vae.activations.peaks, shape, 1)
    assert 0.98 * measured < planned < 1.02 * measured
    without = 2 * peak_values(without_workspaces(vae.activations).peaks, shape, 1)
    assert 0.62 * measured < without < 0.65 * measured


@pytest.mark.parametrize(("cpu_value_bytes", "gib_in_host_memory"), [(4, 17.7), (2, 8.9)])
def test_t5_on_a_cpu_without_bfloat16_counts_as_the_float32_that_it_is_stored_in(
    cpu_value_bytes: int, gib_in_host_memory: float
) -> None:
    policy = Policy(t5="cpu", cpu_value_bytes=cpu_value_bytes)
    chosen = candidates(FLUX, workload(FLUX), 80 * GIB, policy)[0]
    assert chosen.name == "T5 on the CPU"
    assert chosen.host_bytes / GIB == pytest.approx(gib_in_host_memory, abs=0.1)
    assert chosen.peak_bytes == candidates(FLUX, workload(FLUX), 80 * GIB, Policy(t5="cpu"))[0].peak_bytes


@every_model
def test_slots_for_loras_count_where_they_fit_and_are_given_up_before_any_weight_moves(
    model: ModelComponents,
) -> None:
    lora = Component("lora:style", Role.ADAPTER, 100 * 2**20)
    with_lora = replace(workload(model), extras=(lora,))
    policy = Policy(slot_ranks=5 * 32)
    assert not plan(model, workload(model), 80 * GIB, policy).has_lora_slots
    assert not plan(model, with_lora, 80 * GIB).has_lora_slots
    best, second = candidates(model, with_lora, 80 * GIB, policy)[:2]
    assert best.name == "all resident"
    slots = next(part for part in best.components if part.role is Role.LORA_SLOTS)
    denoiser = next(part for part in model.components if part.role is Role.DENOISER)
    assert slots.device_bytes == 5 * 32 * denoiser.linear_widths * 2 > 2**28
    assert second.name == "LoRAs uncompiled"
    assert second.peak_bytes == best.peak_bytes - slots.device_bytes
    # What has no slots is what it is without them.
    assert second.stage_bytes == plan(model, with_lora, 80 * GIB).stage_bytes
    streamed = (one for one in candidates(model, with_lora, 80 * GIB, policy) if "denoiser streamed" in one.name)
    assert not any(one.has_lora_slots for one in streamed)


@every_model
def test_graphs_keep_the_denoisers_activations_in_all_stages_and_are_given_up_before_any_weight_moves(
    model: ModelComponents,
) -> None:
    policy = Policy(graphs=True, allow_fp8=True)
    without = plan(model, workload(model), 80 * GIB)
    best, second = candidates(model, workload(model), 80 * GIB, policy)[:2]
    assert (best.name, second.name) == ("all resident", "no CUDA graphs")
    kept = best.graph_bytes
    assert kept is not None
    assert kept > 2**26
    stages = ("encode", "denoise", "decode")
    assert [best.stage_bytes[stage] - without.stage_bytes[stage] for stage in stages] == [kept, 0, kept]
    assert second.stage_bytes == without.stage_bytes
    assert (without.graph_bytes, second.graph_bytes) == (None, None)
    four = plan(model, workload(model, images=4), 80 * GIB, policy)
    assert four.graph_bytes == pytest.approx(4 * kept, rel=1e-6)
    for one in candidates(model, workload(model), 80 * GIB, policy):
        moves = (
            one.placements["transformer" if "transformer" in one.placements else "unet"] is not Placement.DEVICE
        )
        assert one.graph_bytes is None or not (moves or one.fp8)
