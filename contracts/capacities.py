"""What a worker's memory can do: enough, with a request, to plan it elsewhere as the worker itself would.

A worker publishes it with its report; the API refuses by it what no worker could run. Knows no HTTP, no device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache

from pydantic import BaseModel, ConfigDict

from contracts.catalogue import Catalogue, ModelSpec
from contracts.errors import CatalogueError
from contracts.inventory import (
    Component,
    Inventory,
    take_inventory,
    weigh_adapter,
    weigh_controlnet,
    weigh_uploaded,
)
from contracts.loads import load_of
from contracts.parameters import JobParameters
from contracts.placement import plan
from contracts.plans import Load, Plan, Policy


class Capacity(BaseModel):
    """A worker's budget, its operator's policy, and what it would have to hold.

    Attributes:
        inventories: model -> its components in this worker's dtype; models of which nothing is known are missing.
        extras: `controlnet:ID` or `lora:ID` -> its weight; LoRAs that are still on a hub are missing.
    """

    model_config = ConfigDict(frozen=True)

    budget_bytes: int
    policy: Policy = Policy()
    inventories: dict[str, Inventory]
    extras: dict[str, Component]

    def plan(self, family: str, job: JobParameters) -> Plan | None:
        """The best plan for this job alone; None for a model of which nothing is known."""
        inventory = self.inventories.get(job.model)
        if inventory is None:
            return None
        load = self.load(family, job, inventory.value_bytes)
        return _plan(inventory, load, self.budget_bytes, self.policy)

    def load(self, family: str, job: JobParameters, value_bytes: int, images: int | None = None) -> Load:
        """What a call takes that paints this job, its ControlNets and adapters included; `images` of a batch."""
        names = [f"controlnet:{control.controlnet}" for control in job.controls]
        names += [f"lora:{lora.name}" for lora in job.loras if lora.values is None]
        extras = [self.extras[name] for name in dict.fromkeys(names) if name in self.extras]
        uploaded = (weigh_uploaded(lora, value_bytes) for lora in job.loras)
        extras += [extra for extra in uploaded if extra is not None]
        return load_of(family, job, images, extras)


@lru_cache(maxsize=1024)
def _plan(inventory: Inventory, load: Load, budget_bytes: int, policy: Policy) -> Plan:
    """Requests resemble each other, and a ladder takes milliseconds to climb."""
    return plan(inventory, load, budget_bytes, policy)


def take_capacity(
    catalogue: Catalogue, budget_bytes: int, policy: Policy, value_bytes: Callable[[ModelSpec], int]
) -> Capacity:
    """What a worker with this budget can do; what cannot be read here is left out.

    Args:
        value_bytes: of the dtype in which the worker computes a model.
    """
    inventories: dict[str, Inventory] = {}
    family_bytes: dict[str, int] = {}
    for model in catalogue.models:
        family_bytes.setdefault(model.family, value_bytes(model))
        with suppress(CatalogueError):
            inventory = take_inventory(catalogue, model, value_bytes(model))
            if inventory is not None:
                inventories[model.id] = inventory
    return Capacity(
        budget_bytes=budget_bytes,
        policy=policy,
        inventories=inventories,
        extras={extra.name: extra for extra in _weigh_extras(catalogue, family_bytes)},
    )


def _weigh_extras(catalogue: Catalogue, family_bytes: dict[str, int]) -> Iterable[Component]:
    for kind, rows in ((weigh_controlnet, catalogue.controlnets), (weigh_adapter, catalogue.loras)):
        for row in rows:
            with suppress(CatalogueError):
                extra = kind(catalogue, row.id, family_bytes.get(row.family, 0))
                if extra is not None:
                    yield extra
