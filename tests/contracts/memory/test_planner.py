"""The memory plan's promises, on published sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from contracts.catalogue.catalogue import Catalogue, ModelSpec
from contracts.memory.activations import WorkloadShape
from contracts.memory.components import Component, ModelComponents, Role, read_components
from contracts.memory.plan import Placement, Policy, Workload, gib
from contracts.memory.planner import candidates, plan, step_down
from contracts.weights.architectures import read_architectures

GIB = 2**30


def _architecture(id: str) -> ModelComponents:
    facts = next(one for one in read_architectures() if one.id == id)
    model = ModelSpec(id=id, family=facts.family, source=facts.sources[0])
    components = read_components(Catalogue(root=Path(), default_model=id, models=(model,)), model, 2)
    assert components is not None
    return components


SDXL, SD3, FLUX = _architecture("sdxl"), _architecture("sd3.5-large"), _architecture("flux.1-dev")
BUDGETS = [gib * GIB for gib in (4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 80)]
POLICIES = [Policy(), Policy(allow_fp8=True), Policy(allow_drop_t5=True), Policy(t5="cpu"), Policy(t5="off")]
everything = pytest.mark.parametrize("model", [SDXL, SD3, FLUX], ids=lambda one: one.model)


def load(model: ModelComponents, side: int = 1024, images: int = 1) -> Workload:
    return Workload(WorkloadShape(side, side, images, guided=model is not FLUX))


@everything
@pytest.mark.parametrize("policy", POLICIES)
def test_a_larger_budget_never_costs_more_nor_paints_less(model: ModelComponents, policy: Policy) -> None:
    plans = [plan(model, load(model), budget, policy) for budget in BUDGETS]
    fitting = [one for one in plans if one.fits]
    assert fitting == plans[-len(fitting) :]
    costs = [(one.fp8, one.name.count("skipped"), one.extra_seconds) for one in fitting]
    assert min(costs) == costs[-1]
    for policy_free in (one for one in plans if one.fits):
        assert policy_free.peak_bytes <= policy_free.budget_bytes


@everything
@pytest.mark.parametrize("policy", POLICIES)
def test_every_step_down_needs_less_and_the_ladder_ends(model: ModelComponents, policy: Policy) -> None:
    ladder = candidates(model, load(model), 8 * GIB, policy)
    assert [rung.peak_bytes for rung in ladder] == sorted((rung.peak_bytes for rung in ladder), reverse=True)
    step, last = ladder[0], ladder[0]
    while (lower := step_down(ladder, step)) is not None:
        assert lower.peak_bytes <= 0.95 * step.peak_bytes or lower is ladder[-1]
        assert lower.peak_bytes < step.peak_bytes
        step = last = lower
    assert last is ladder[-1]
    assert len({rung.name for rung in ladder}) == len(ladder)


@everything
def test_the_batch_that_fits_fits_and_one_more_does_not(model: ModelComponents) -> None:
    for budget in (6 * GIB, 24 * GIB):
        for rung in candidates(model, load(model), budget):
            if not rung.fits:
                assert rung.batch_images == 0
                continue
            same = {one.name: one for one in candidates(model, load(model, images=rung.batch_images), budget)}
            more = {one.name: one for one in candidates(model, load(model, images=rung.batch_images + 1), budget)}
            assert same.get(rung.name, rung).fits
            assert rung.name not in more or not more[rung.name].fits


def test_all_stays_where_all_has_room() -> None:
    best = plan(FLUX, load(FLUX), 80 * GIB)
    assert best.name == "all resident"
    assert set(best.placements.values()) == {Placement.DEVICE}
    assert best.extra_seconds == 0


def test_t5_is_parked_before_anything_that_runs_at_every_step() -> None:
    tight = plan(FLUX, load(FLUX), 24 * GIB)
    assert tight.placements["transformer"] is Placement.DEVICE
    assert tight.placements["text_encoder_2"] in (Placement.ON_DEMAND, Placement.STREAMED)
    assert "; next better: " in tight.reason


@pytest.mark.parametrize(
    ("policy", "homes"),
    [
        ("gpu", {Placement.DEVICE}),
        ("cpu", {Placement.CPU}),
        ("on_demand", {Placement.ON_DEMAND, Placement.STREAMED}),
        ("off", {Placement.SKIPPED}),
        ("auto", {Placement.DEVICE, Placement.ON_DEMAND, Placement.STREAMED, Placement.CPU}),
    ],
)
def test_the_policy_bounds_the_homes_of_t5(policy: str, homes: set[Placement]) -> None:
    ladder = candidates(SD3, load(SD3), 8 * GIB, Policy(t5=policy))  # type: ignore[arg-type]
    assert {rung.placements["text_encoder_3"] for rung in ladder} <= homes


def test_a_family_that_needs_t5_keeps_it_whatever_is_allowed() -> None:
    for policy in (Policy(t5="off"), Policy(allow_drop_t5=True)):
        for rung in candidates(FLUX, load(FLUX), 4 * GIB, policy):
            assert rung.placements["text_encoder_2"] is not Placement.SKIPPED


def test_nothing_that_changes_images_happens_without_leave() -> None:
    for model in (SDXL, SD3, FLUX):
        for rung in candidates(model, load(model), 4 * GIB):
            assert not rung.fp8
            assert Placement.SKIPPED not in rung.placements.values()


def test_a_refusal_names_the_smallest_plan_and_its_need() -> None:
    refused = plan(FLUX, load(FLUX), GIB // 2)
    assert not refused.fits
    assert refused.batch_images == 0
    smallest = candidates(FLUX, load(FLUX), GIB // 2)[-1]
    assert refused.reason == (
        f"no plan fits 0.5 GiB; the smallest, {smallest.name}, would need {gib(smallest.peak_bytes)}"
    )


def test_little_host_memory_rules_out_parking() -> None:
    ladder = candidates(FLUX, load(FLUX), 24 * GIB, Policy(host_bytes=12 * GIB))
    assert max(rung.host_bytes for rung in ladder) <= 12 * GIB
    assert ladder[-1].placements["transformer"] is Placement.DEVICE


def test_controlnets_and_adapters_count() -> None:
    bare = load(SDXL)
    extra = Component("controlnet:canny", Role.CONTROLNET, 2_500_000_000, 10**8)
    with_control = replace(bare, extras=(extra,))
    lean, rich = (candidates(SDXL, one, 12 * GIB)[0] for one in (bare, with_control))
    assert rich.peak_bytes >= lean.peak_bytes + extra.bytes
    assert rich.placements["controlnet:canny"] is Placement.DEVICE
