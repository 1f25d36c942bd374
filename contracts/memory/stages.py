"""The plan of a job of several stages, by models of their own or one at another size: one plan over all. Pure.

A worker places the models one after the other, so the stages' peaks do not add up.
"""

from __future__ import annotations

from collections.abc import Sequence

from contracts.memory.plan import Placement, Plan
from contracts.memory.seconds import move_seconds


def join_stages(plans: Sequence[Plan], later_stage: str = "refiner") -> Plan:
    """Return the plan of the whole job; the components and stages of later models are named `refiner:NAME`, or
    as the stage is called.

    Args:
        plans: at least one, in order.
        later_stage: what the stages after the first are called.
    """
    first, *later = plans
    if not later:
        return first
    misfit = next((plan for plan in plans if not plan.fits), None)
    reasons = [first.reason, *(f"{later_stage}: {plan.reason}" for plan in later)]
    return first.model_copy(
        update={
            "name": "; ".join([first.name, *(f"{later_stage}: {plan.name}" for plan in later)]),
            "components": (
                *first.components,
                *(
                    part.model_copy(update={"name": f"{later_stage}:{part.name}"})
                    for plan in later
                    for part in plan.components
                ),
            ),
            "tile_side": min((plan.tile_side for plan in plans if plan.tile_side is not None), default=None),
            "fp8": any(plan.fp8 for plan in plans),
            "stage_bytes": first.stage_bytes
            | {f"{later_stage}:{stage}": size for plan in later for stage, size in plan.stage_bytes.items()},
            "activation_bytes": max(plan.activation_bytes for plan in plans),
            "peak_bytes": max(plan.peak_bytes for plan in plans),
            "host_bytes": max(plan.host_bytes for plan in plans),
            "fits": misfit is None,
            "batch_images": min(plan.batch_images for plan in plans),
            "batch_pixels": min(plan.batch_pixels for plan in plans),
            "extra_seconds": round(sum(plan.extra_seconds for plan in plans) + _switch_seconds(plans), 2),
            "reason": "; ".join(reasons) if misfit is None else misfit.reason,
        }
    )


def _switch_seconds(plans: Sequence[Plan]) -> float:
    """What it takes to bring each model to the device, where they do not fit there beside each other."""
    if len({plan.model for plan in plans}) == 1:
        return 0.0
    resident = [
        sum(part.bytes for part in plan.components if part.placement is Placement.DEVICE) for plan in plans
    ]
    largest = max(plan.activation_bytes for plan in plans)
    return 0.0 if sum(resident) + largest <= plans[0].budget_bytes else sum(map(move_seconds, resident))
