"""The memory planner: the best plan for a workload within a budget of device memory.

A pure function of component sizes, workload, policy and budget, without torch: the API refuses requests by it,
`darkroom plan` prints it, workers follow it. It opens no file and moves no weights.

Every strategy costs seconds and needs bytes. The candidates are the strategies that no other beats in both: the
first is the fastest, and each following one is slower and smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from contracts.byte_sizes import gib
from contracts.catalogue.catalogue import Catalogue, VaeSpec
from contracts.catalogue.families import ALL_FAMILIES
from contracts.catalogue.rows.models import ModelSpec
from contracts.catalogue.rows.row import Row
from contracts.errors import CatalogueError
from contracts.memory.activations import without_workspaces
from contracts.memory.estimate import Estimate
from contracts.memory.plan import Placement, Plan, Strategy, strategies
from contracts.memory.policy import Policy
from contracts.memory.sizes.component import Component, ModelComponents, Role
from contracts.memory.sizes.extras import (
    as_preview_vae,
    size_adapter,
    size_controlnet,
    size_image_encoders,
    size_ip_adapter,
    size_lora_slots,
    size_uploaded,
    size_uploaded_controlnet,
    size_vae,
)
from contracts.memory.sizes.models import read_components
from contracts.memory.sizes.networks import NetworkFacts, read_network
from contracts.memory.stage_bytes import Known
from contracts.memory.stages import join_stages
from contracts.memory.workload import Workload, workload_of
from contracts.requests.parameters import JobParameters

#: A step down must bring the peak to this share of the failed plan's: a smaller step would hardly help.
_STEP = 0.95


def plan(model: ModelComponents, workload: Workload, budget_bytes: int, policy: Policy | None = None) -> Plan:
    """The fastest plan that fits; where none fits, the smallest, with `fits` false and the reason why."""
    better: Estimate | None = None
    for estimate in _estimates(model, workload, policy):
        if estimate.peak_bytes <= budget_bytes:
            chosen = estimate.plan(budget_bytes)
            beside = (
                "" if better is None else f"; next better: {better.name}, which needs {gib(better.peak_bytes)}"
            )
            return chosen.model_copy(update={"reason": f"{chosen.reason}{beside}{_uncertainty(estimate)}"})
        better = estimate
    smallest = estimate.plan(budget_bytes)
    needed = f"{smallest.name}, would need {gib(smallest.peak_bytes)}"
    reason = f"no plan fits {gib(budget_bytes)}; the smallest, {needed}{_uncertainty(estimate)}"
    return smallest.model_copy(update={"reason": reason})


def _uncertainty(estimate: Estimate) -> str:
    """What of an estimate is assumed, as the end of a sentence."""
    components = [component for component, _ in estimate.parts]
    assumed = ", ".join(component.name for component in components if component.origin == "assumed")
    scaled = ", ".join(component.name for component in components if not component.activations.counted)
    size = f"; the size of {assumed} is assumed" if assumed else ""
    return size + (f"; the activations of {scaled} are scaled from a similar configuration" if scaled else "")


def step_down(plans: Sequence[Plan], failed: Plan) -> Plan | None:
    """Return the plan to try after one that ran out of memory; None if no smaller one exists.

    The first that needs at most 95 % of the failed one's peak, else the smallest.
    """
    smaller = [candidate for candidate in plans if candidate.peak_bytes < failed.peak_bytes]
    worth = (candidate for candidate in smaller if candidate.peak_bytes <= _STEP * failed.peak_bytes)
    return next(worth, smaller[-1] if smaller else None)


def candidates(
    model: ModelComponents, workload: Workload, budget_bytes: int, policy: Policy | None = None
) -> list[Plan]:
    """All plans worth trying, from the fastest to the smallest; never empty."""
    return [estimate.plan(budget_bytes) for estimate in _estimates(model, workload, policy)]


@lru_cache(maxsize=64)
def _estimates(model: ModelComponents, workload: Workload, policy: Policy | None) -> tuple[Estimate, ...]:
    """The estimates that no other beats in both seconds and bytes, from the fastest to the smallest.

    They depend on no budget: those of the last workloads are kept for the next question, which has another one.
    """
    policy = Policy() if policy is None else policy
    if not policy.cudnn:
        model = replace(model, components=tuple(map(_without_workspaces, model.components)))
        workload = replace(workload, extras=tuple(map(_without_workspaces, workload.extras)))
    slots = size_lora_slots(model, workload.extras, policy.slot_ranks)
    with_slots = workload if slots is None else replace(workload, extras=(*workload.extras, slots))
    known: Mapping[int, Known] = {id(workload): {}, id(with_slots): {}}
    every: list[Estimate] = []
    for strategy in strategies(model, policy):
        is_streamed = strategy.denoiser is Placement.STREAMED
        if is_streamed and any(part.shares_layers for part in workload.extras):
            continue
        of = partial(Estimate.of, strategy, model, cpu_value_bytes=policy.cpu_value_bytes)
        is_compiled = slots is not None and not is_streamed and not strategy.fp8
        graphs = (True, False) if _can_replay(strategy, model, policy) else (None,)
        own = with_slots if is_compiled else workload
        every += [of(own, graphs=replayed, known=known[id(own)]) for replayed in graphs]
        if is_compiled:
            every.append(of(workload, uncompiled=True, known=known[id(workload)]))
    if policy.host_bytes is not None:
        limit = max(policy.host_bytes, min(estimate.host_bytes for estimate in every))
        every = [estimate for estimate in every if estimate.host_bytes <= limit]
    chosen: list[Estimate] = []
    for estimate in sorted(every, key=lambda estimate: (estimate.cost_seconds, estimate.peak_bytes)):
        if not chosen or estimate.peak_bytes < chosen[-1].peak_bytes:
            chosen.append(estimate)
    return tuple(chosen)


def _can_replay(strategy: Strategy, model: ModelComponents, policy: Policy) -> bool:
    """Whether the denoiser's weights keep their addresses, and are not unpacked or cast for each layer."""
    is_packed = any(part.role is Role.DENOISER and part.is_packed for part in model.components)
    return policy.graphs and strategy.denoiser is Placement.DEVICE and not strategy.fp8 and not is_packed


def _without_workspaces(component: Component) -> Component:
    return replace(component, activations=without_workspaces(component.activations))


class Capacity(BaseModel):
    """All that is needed to plan as one worker does. It travels in the worker's report.

    Attributes:
        models: id -> components in the worker's dtype; models that cannot be read yet are missing.
        extras: `controlnet:ID`, `lora:ID`, `ip_adapter:ID` or `vae:ID` -> component; LoRAs and IP-Adapters
            that are still on a hub are missing.
        networks: `upscaler:ID` or `eraser:ID` -> what its file holds; those that are still on a hub are missing.
    """

    model_config = ConfigDict(frozen=True)

    budget_bytes: int
    policy: Policy = Policy()
    models: dict[str, ModelComponents]
    extras: dict[str, Component]
    networks: dict[str, NetworkFacts] = {}

    def knowing(
        self,
        models: Mapping[str, ModelComponents] | None = None,
        extras: Mapping[str, Component] | None = None,
        networks: Mapping[str, NetworkFacts] | None = None,
    ) -> Capacity:
        """The same with more that is known."""
        more = {
            "models": {**self.models, **(models or {})},
            "extras": {**self.extras, **(extras or {})},
            "networks": {**self.networks, **(networks or {})},
        }
        return self.model_copy(update=more)

    def plan(self, family: str, job: JobParameters) -> Plan | None:
        """The best plan for all stages of this job alone; None where one of its models is missing here."""
        plans = []
        later_family = family if job.hires is not None else ALL_FAMILIES[family].later_models
        for stage, id in zip(job.stages, (family, later_family), strict=False):
            model = self.models.get(stage.model)
            if model is None:
                return None
            workload = self.workload(id, stage, model.value_bytes)
            plans.append(_plan(model, workload, self.budget_bytes, self.policy))
        return join_stages(plans, job.later_stage)

    def workload(self, family: str, job: JobParameters, value_bytes: int, images: int | None = None) -> Workload:
        """The workload of a call that generates this job's images, with its ControlNets and adapters.

        Args:
            value_bytes: of one value in the dtype the worker computes in.
            images: in the call; None: the job's own.
        """
        names = [f"controlnet:{control.controlnet}" for control in job.controls if control.values is None]
        names += [] if job.vae is None else [f"vae:{job.vae}"]
        names += [f"lora:{lora.name}" for lora in job.loras if lora.values is None]
        extras = [self.extras[name] for name in dict.fromkeys(names) if name in self.extras]
        preview_vae = self.extras.get(f"vae:{job.preview_vae}")
        extras += [] if preview_vae is None else [as_preview_vae(preview_vae)]
        for adapter in job.ip_adapters:
            extra = size_uploaded(adapter, value_bytes) or self.extras.get(f"ip_adapter:{adapter.name}")
            if extra is not None:  # each image has keys and values of its own
                extras.append(replace(extra, bytes=extra.bytes * len(adapter.images)))
        extras += self._image_encoders(job)
        uploaded = [size_uploaded(lora, value_bytes) for lora in job.loras]
        nets = {control.component: control for control in job.controls}.values()
        uploaded += [size_uploaded_controlnet(control, family, value_bytes) for control in nets]
        extras += [component for component in uploaded if component is not None]
        return workload_of(family, job, images, extras)

    def _image_encoders(self, job: JobParameters) -> list[Component]:
        """Those of its IP-Adapters, each once."""
        keys = (
            f"image_encoder:{adapter.image_encoder}"
            if adapter.image_encoder is not None
            else f"image_encoder of {adapter.name}"
            for adapter in job.ip_adapters
        )
        found = (self.extras[key] for key in keys if key in self.extras)
        return list({component.name: component for component in found}.values())


@lru_cache(maxsize=1024)
def _plan(model: ModelComponents, workload: Workload, budget_bytes: int, policy: Policy) -> Plan:
    """Cached: planning takes milliseconds, and many requests are alike."""
    return plan(model, workload, budget_bytes, policy)


def take_capacity(
    catalogue: Catalogue, budget_bytes: int, policy: Policy, value_bytes: Callable[[ModelSpec], int]
) -> Capacity:
    """The capacity of a worker with this budget; what cannot be read here is left out.

    Args:
        value_bytes: of one value in the dtype the worker computes a model in.
    """
    models: dict[str, ModelComponents] = {}
    family_value_bytes: dict[str, int] = {}
    for model in catalogue.models:
        family_value_bytes.setdefault(model.family, value_bytes(model))
        with suppress(CatalogueError):
            components = read_components(catalogue, model, value_bytes(model))
            if components is not None:
                models[model.id] = components
    extras = {extra.name: extra for extra in _size_extras(catalogue, family_value_bytes)}
    extras |= size_image_encoders(catalogue)
    networks = dict(_read_networks(catalogue))
    return Capacity(budget_bytes=budget_bytes, policy=policy, models=models, extras=extras, networks=networks)


def _size_extras(catalogue: Catalogue, family_value_bytes: dict[str, int]) -> Iterator[Component]:
    kinds: Sequence[tuple[Callable[[Catalogue, str, int], Component | None], Sequence[Row | VaeSpec]]] = (
        (size_controlnet, catalogue.controlnets),
        (size_adapter, catalogue.loras),
        (size_ip_adapter, catalogue.ip_adapters),
        (size_vae, catalogue.vaes),
    )
    for size, rows in kinds:
        for row in rows:
            with suppress(CatalogueError):
                component = size(catalogue, row.id, family_value_bytes.get(row.family, 0))
                if component is not None:
                    yield component


def _read_networks(catalogue: Catalogue) -> Iterator[tuple[str, NetworkFacts]]:
    for kind, rows in (("upscaler", catalogue.upscalers), ("eraser", catalogue.erasers)):
        for row in rows:
            with suppress(CatalogueError, OSError):
                place = catalogue.place(row)
                if isinstance(place, Path):
                    yield f"{kind}:{row.id}", read_network(kind, place)
