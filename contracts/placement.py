"""The memory plan: where each component of a model lives while one request runs within a budget of bytes.

A pure function of component sizes, the request, the operator's policy and the budget, without torch: the API
refuses by it, `darkroom plan` prints it, a worker takes it. It opens no file and moves nothing.

Every way to place the components costs seconds and needs bytes. `rungs` is the ladder of those ways of which
none both costs more and needs more than another: its first rung is the fastest, and each step down is slower
and smaller.
"""

from __future__ import annotations

from collections.abc import Sequence

from contracts.inventory import Inventory
from contracts.layouts import Layout
from contracts.plans import Load, Plan, Policy, gib
from contracts.ways import ways

#: Peak of a step down beside that of the plan that failed.
_STEP = 0.95


def plan(inventory: Inventory, load: Load, budget_bytes: int, policy: Policy | None = None) -> Plan:
    """The best plan that fits; where none does, the smallest, with `fits` false and the reason why."""
    above: Layout | None = None
    for layout in _ladder(inventory, load, policy):
        if layout.peak_bytes <= budget_bytes:
            chosen = layout.plan(budget_bytes)
            beside = "" if above is None else f"; next better: {above.name}, which needs {gib(above.peak_bytes)}"
            return chosen.model_copy(update={"reason": f"{chosen.reason}{beside}{_doubt(chosen)}"})
        above = layout
    smallest = layout.plan(budget_bytes)
    least = f"{smallest.rung}, would need {gib(smallest.peak_bytes)}"
    reason = f"no plan fits {gib(budget_bytes)}; the smallest, {least}{_doubt(smallest)}"
    return smallest.model_copy(update={"reason": reason})


def _doubt(chosen: Plan) -> str:
    """What of a plan is not known but assumed."""
    assumed = ", ".join(part.component for part in chosen.parts if part.origin == "assumed")
    return f"; the size of {assumed} is assumed" if assumed else ""


def step_down(ladder: Sequence[Plan], failed: Plan) -> Plan | None:
    """The next plan down after one that ran out of memory; None at the end.

    It saves a twentieth of the peak, or is the last one: a smaller step would hardly help.
    """
    lower = [rung for rung in ladder if rung.peak_bytes < failed.peak_bytes]
    worth = (rung for rung in lower if rung.peak_bytes <= _STEP * failed.peak_bytes)
    return next(worth, lower[-1] if lower else None)


def rungs(inventory: Inventory, load: Load, budget_bytes: int, policy: Policy | None = None) -> list[Plan]:
    """All plans worth taking, from the fastest to the smallest; never empty."""
    return [layout.plan(budget_bytes) for layout in _ladder(inventory, load, policy)]


def _ladder(inventory: Inventory, load: Load, policy: Policy | None) -> list[Layout]:
    """Every layout that no other beats in both seconds and bytes, from the fastest to the smallest."""
    policy = Policy() if policy is None else policy
    every = [Layout.of(way, inventory, load) for way in ways(inventory, policy)]
    if policy.host_bytes is not None:
        bound = max(policy.host_bytes, min(layout.host_bytes for layout in every))
        every = [layout for layout in every if layout.host_bytes <= bound]
    ladder: list[Layout] = []
    for layout in sorted(every, key=lambda one: (one.cost_seconds, one.peak_bytes)):
        if not ladder or layout.peak_bytes < ladder[-1].peak_bytes:
            ladder.append(layout)
    return ladder
