"""What this worker's models may do within its budget, by the plan of `contracts/placement.py`."""

from __future__ import annotations

from contracts.catalogue import Catalogue
from contracts.inventory import take_inventory
from contracts.loads import own_load
from contracts.placement import plan
from contracts.plans import Plan, Policy


def plan_all(
    catalogue: Catalogue, budget_bytes: int, value_bytes: int, policy: Policy | None = None
) -> dict[str, Plan]:
    """Each model's plan for one image of its own size; models of which nothing is known yet have none."""
    plans = {}
    for model in catalogue.models:
        inventory = take_inventory(catalogue, model, value_bytes)
        if inventory is not None:
            plans[model.id] = plan(inventory, own_load(model), budget_bytes, policy)
    return plans
