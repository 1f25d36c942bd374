"""The memory plan: where each component of a model lives while one request runs within a budget of bytes.

A pure function of component sizes, the request, the operator's policy and the budget, without torch: the API
refuses by it, `darkroom plan` prints it, a worker takes it. It opens no file and moves nothing.

Every way to place the components costs seconds and needs bytes. `candidates` is the ladder of those ways of which
none both costs more and needs more than another: its first plan is the fastest, and each step down is slower
and smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache

from pydantic import BaseModel, ConfigDict

from contracts.catalogue.catalogue import Catalogue, ModelSpec
from contracts.errors import CatalogueError
from contracts.memory.components import (
    Component,
    ModelComponents,
    read_components,
    size_adapter,
    size_controlnet,
    size_uploaded,
)
from contracts.memory.estimate import Estimate
from contracts.memory.plan import Plan, Policy, Workload, gib, strategies, workload_of
from contracts.requests.parameters import JobParameters

#: Peak of a step down beside that of the plan that failed.
_STEP = 0.95


def plan(model: ModelComponents, workload: Workload, budget_bytes: int, policy: Policy | None = None) -> Plan:
    """The best plan that fits; where none does, the smallest, with `fits` false and the reason why."""
    above: Estimate | None = None
    for estimate in _candidates(model, workload, policy):
        if estimate.peak_bytes <= budget_bytes:
            chosen = estimate.plan(budget_bytes)
            beside = "" if above is None else f"; next better: {above.name}, which needs {gib(above.peak_bytes)}"
            return chosen.model_copy(update={"reason": f"{chosen.reason}{beside}{_doubt(chosen)}"})
        above = estimate
    smallest = estimate.plan(budget_bytes)
    least = f"{smallest.name}, would need {gib(smallest.peak_bytes)}"
    reason = f"no plan fits {gib(budget_bytes)}; the smallest, {least}{_doubt(smallest)}"
    return smallest.model_copy(update={"reason": reason})


def _doubt(chosen: Plan) -> str:
    """What of a plan is not known but assumed."""
    assumed = ", ".join(part.name for part in chosen.components if part.origin == "assumed")
    return f"; the size of {assumed} is assumed" if assumed else ""


def step_down(candidate_plans: Sequence[Plan], failed: Plan) -> Plan | None:
    """The next plan down after one that ran out of memory; None at the end.

    It saves a twentieth of the peak, or is the last one: a smaller step would hardly help.
    """
    lower = [plan for plan in candidate_plans if plan.peak_bytes < failed.peak_bytes]
    worth = (plan for plan in lower if plan.peak_bytes <= _STEP * failed.peak_bytes)
    return next(worth, lower[-1] if lower else None)


def candidates(
    model: ModelComponents, workload: Workload, budget_bytes: int, policy: Policy | None = None
) -> list[Plan]:
    """All plans worth taking, from the fastest to the smallest; never empty."""
    return [estimate.plan(budget_bytes) for estimate in _candidates(model, workload, policy)]


def _candidates(model: ModelComponents, workload: Workload, policy: Policy | None) -> list[Estimate]:
    """Every estimate that no other beats in both seconds and bytes, from the fastest to the smallest."""
    policy = Policy() if policy is None else policy
    every = [Estimate.of(strategy, model, workload) for strategy in strategies(model, policy)]
    if policy.host_bytes is not None:
        bound = max(policy.host_bytes, min(estimate.host_bytes for estimate in every))
        every = [estimate for estimate in every if estimate.host_bytes <= bound]
    candidate_plans: list[Estimate] = []
    for estimate in sorted(every, key=lambda one: (one.cost_seconds, one.peak_bytes)):
        if not candidate_plans or estimate.peak_bytes < candidate_plans[-1].peak_bytes:
            candidate_plans.append(estimate)
    return candidate_plans


class Capacity(BaseModel):
    """A worker's budget, its operator's policy, and what it would have to hold.

    Attributes:
        models: model -> its components in this worker's dtype; models of which nothing is known are missing.
        extras: `controlnet:ID` or `lora:ID` -> its weight; LoRAs that are still on a hub are missing.
    """

    model_config = ConfigDict(frozen=True)

    budget_bytes: int
    policy: Policy = Policy()
    models: dict[str, ModelComponents]
    extras: dict[str, Component]

    def plan(self, family: str, job: JobParameters) -> Plan | None:
        """The best plan for this job alone; None for a model of which nothing is known."""
        model = self.models.get(job.model)
        if model is None:
            return None
        workload = self.workload(family, job, model.value_bytes)
        return _plan(model, workload, self.budget_bytes, self.policy)

    def workload(self, family: str, job: JobParameters, value_bytes: int, images: int | None = None) -> Workload:
        """What a call takes that paints this job, its ControlNets and adapters included; `images` of a batch."""
        names = [f"controlnet:{control.controlnet}" for control in job.controls]
        names += [f"lora:{lora.name}" for lora in job.loras if lora.values is None]
        extras = [self.extras[name] for name in dict.fromkeys(names) if name in self.extras]
        uploaded = (size_uploaded(lora, value_bytes) for lora in job.loras)
        extras += [extra for extra in uploaded if extra is not None]
        return workload_of(family, job, images, extras)


@lru_cache(maxsize=1024)
def _plan(model: ModelComponents, workload: Workload, budget_bytes: int, policy: Policy) -> Plan:
    """Requests resemble each other, and a ladder takes milliseconds to climb."""
    return plan(model, workload, budget_bytes, policy)


def take_capacity(
    catalogue: Catalogue, budget_bytes: int, policy: Policy, value_bytes: Callable[[ModelSpec], int]
) -> Capacity:
    """What a worker with this budget can do; what cannot be read here is left out.

    Args:
        value_bytes: of the dtype in which the worker computes a model.
    """
    models: dict[str, ModelComponents] = {}
    family_bytes: dict[str, int] = {}
    for model in catalogue.models:
        family_bytes.setdefault(model.family, value_bytes(model))
        with suppress(CatalogueError):
            components = read_components(catalogue, model, value_bytes(model))
            if components is not None:
                models[model.id] = components
    return Capacity(
        budget_bytes=budget_bytes,
        policy=policy,
        models=models,
        extras={extra.name: extra for extra in _weigh_extras(catalogue, family_bytes)},
    )


def _weigh_extras(catalogue: Catalogue, family_bytes: dict[str, int]) -> Iterable[Component]:
    for kind, rows in ((size_controlnet, catalogue.controlnets), (size_adapter, catalogue.loras)):
        for row in rows:
            with suppress(CatalogueError):
                extra = kind(catalogue, row.id, family_bytes.get(row.family, 0))
                if extra is not None:
                    yield extra
