"""What plans cost over a sequence of calls, on published sizes and on a simulated card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.memory.moves import Neighbour, Situation, cheapest, gives_same_image, price_seconds
from contracts.memory.plan import Placement, Plan
from contracts.memory.planner import candidates
from contracts.memory.policy import Policy
from contracts.memory.sizes.component import ModelComponents
from contracts.memory.sizes.models import read_components
from contracts.memory.workload import default_workload
from contracts.weights.counts.architectures import read_architectures

GIB = 2**30


@cache
def _plans(id: str, budget_bytes: int) -> Sequence[Plan]:
    """All that fit and give the image of the best one, fastest first."""
    published = next(architecture for architecture in read_architectures() if architecture.id == id)
    model = ModelSpec(id=id, family=published.family, source=published.sources[0])
    components = read_components(Catalogue(root=Path(), default_model=id, models=(model,)), model, 2)
    assert isinstance(components, ModelComponents)
    every = candidates(components, default_workload(model), budget_bytes, Policy(cudnn=True))
    fitting = [plan for plan in every if plan.fits]
    return [plan for plan in fitting if gives_same_image(plan, fitting[0])]


def _resident(plan: Plan) -> list[str]:
    return [name for name, placement in plan.placements.items() if placement is Placement.DEVICE]


def _resident_bytes(plan: Plan) -> int:
    return sum(part.bytes for part in plan.components if part.placement is Placement.DEVICE)


def _run(sequence: Sequence[str], size_bytes: int, *, priced: bool) -> tuple[int, int]:
    """Bytes that models move to the device to stay, and how often one leaves it, over a sequence of calls."""
    here: dict[str, Plan] = {}
    moved = evictions = 0
    for id in sequence:
        plans, before = _plans(id, size_bytes), here.pop(id, None)
        resident = [] if before is None else _resident(before)
        neighbours = [Neighbour(_resident_bytes(plan), components=len(plan.components)) for plan in here.values()]
        situation = Situation(size_bytes, resident, neighbours)
        plan = cheapest(plans, situation) if priced else plans[0]
        while sum(map(_resident_bytes, here.values())) + plan.peak_bytes > size_bytes:
            here.pop(next(iter(here)))
            evictions += 1
        moved += sum(part.bytes for part in plan.components if part.name in set(_resident(plan)) - set(resident))
        here[id] = plan
    return moved, evictions


@pytest.mark.parametrize("size_gib", [12, 16, 20, 24, 32, 40, 44])
def test_models_that_alternate_move_no_more_than_if_each_took_its_fastest_plan(size_gib: int) -> None:
    sequence = ["sdxl", "flux.1-dev"] * 3
    moved, evictions = _run(sequence, size_gib * GIB, priced=True)
    greedy_moved, greedy_evictions = _run(sequence, size_gib * GIB, priced=False)
    assert moved <= greedy_moved
    assert evictions <= greedy_evictions


def test_a_model_that_fits_beside_another_with_a_slightly_slower_plan_leaves_it_there() -> None:
    """On 36 GiB, FLUX.1 with its T5 on demand leaves room for SDXL; all resident it would displace it."""
    sequence = ["sdxl", "flux.1-dev"] * 4
    moved, evictions = _run(sequence, 36 * GIB, priced=True)
    assert _run(sequence, 36 * GIB, priced=False)[1] == 7
    assert evictions == 0
    both = sum(_resident_bytes(_plans(id, 36 * GIB)[0]) for id in sequence[:2])
    assert moved <= both


def test_calls_in_a_row_pay_for_the_faster_plan() -> None:
    """Where a call of one kind follows another, its own seconds weigh more than the move that it causes once."""
    plans = _plans("flux.1-dev", 36 * GIB)
    beside = Neighbour(int(6.6 * GIB), components=4)
    chosen = [cheapest(plans, Situation(36 * GIB, (), [beside], calls)) for calls in (1, 2, 5, 50)]
    assert chosen[0].name != "all resident"
    assert chosen[-1].name == "all resident"
    seconds = [plan.extra_seconds for plan in chosen]
    assert seconds == sorted(seconds, reverse=True)


def test_a_model_that_would_have_to_be_loaded_again_is_worth_more_and_one_that_nobody_calls_nothing() -> None:
    kept = Neighbour(8 * GIB)
    assert replace(kept, is_kept=False).return_seconds > kept.return_seconds + 1
    assert replace(kept, is_wanted=False).return_seconds == 0
    plan = _plans("flux.1-dev", 36 * GIB)[0]
    size = plan.peak_bytes + 8 * GIB
    crowded = Situation(size, _resident(plan), [replace(kept, is_wanted=False), kept])
    # The first to leave makes enough room.
    assert price_seconds(plan, crowded) == 0
    assert price_seconds(plan, replace(crowded, neighbours=[kept, kept])) == kept.return_seconds


def test_components_that_nobody_needs_leave_before_a_model_does() -> None:
    plan = _plans("sdxl", 12 * GIB)[0]
    others = [Neighbour(3 * GIB, spare_bytes=0), Neighbour(3 * GIB, spare_bytes=3 * GIB)]
    size = plan.peak_bytes + 3 * GIB
    assert price_seconds(plan, Situation(size, _resident(plan), others)) == 0


def test_of_plans_that_cost_the_same_the_one_that_moves_least_is_taken() -> None:
    plans = _plans("flux.1-dev", 40 * GIB)
    assert cheapest(plans, Situation(40 * GIB)).extra_seconds > 0
    assert cheapest(plans, Situation(40 * GIB, calls=2)).name == "all resident"
    assert cheapest(plans, Situation(40 * GIB, _resident(plans[0]))).name == "all resident"


def test_plans_that_change_the_image_are_not_the_same() -> None:
    whole = _plans("flux.1-dev", 40 * GIB)[0]
    parts = tuple(
        part.model_copy(update={"placement": Placement.ON_DEMAND if part.name == "vae" else part.placement})
        for part in whole.components
    )
    on_cpu = tuple(
        part.model_copy(update={"placement": Placement.CPU if part.role == "t5" else part.placement})
        for part in whole.components
    )
    assert gives_same_image(whole, whole.model_copy(update={"components": parts}))
    for change in ({"tile_side": 512}, {"fp8": True}, {"components": on_cpu}):
        assert not gives_same_image(whole, whole.model_copy(update=change))
