"""What this worker's models may do within its budget, by the plan of `contracts/placement.py`."""

from __future__ import annotations

from contracts.activations import Canvas
from contracts.catalogue import Catalogue, ModelSpec
from contracts.inventory import take_inventory
from contracts.placement import plan
from contracts.plans import Load, Plan, Policy


def plan_all(
    catalogue: Catalogue, budget_bytes: int, value_bytes: int, policy: Policy | None = None
) -> dict[str, Plan]:
    """Each model's plan for one image of its own size; models that are still on a hub have none."""
    plans = {}
    for model in catalogue.models:
        inventory = take_inventory(catalogue, model, value_bytes)
        if inventory is not None:
            plans[model.id] = plan(inventory, own_load(model), budget_bytes, policy)
    return plans


def own_load(model: ModelSpec) -> Load:
    """One image as the model's row has it by default."""
    return Load(Canvas(model.family, _size(model, "width"), _size(model, "height")))


def _size(model: ModelSpec, field: str) -> int:
    return int(str(model.default(field)))
