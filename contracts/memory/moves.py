"""The cost of a plan beyond its own call: weights that must be moved for it, and back for the calls that follow.

Of plans that give the same image, a worker takes the one that is
cheapest over the calls that it expects. Knows no tensors.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from contracts.memory.plan import Placement, Plan
from contracts.memory.seconds import load_seconds, move_seconds


@dataclass(frozen=True)
class Neighbour:
    """Another model on the device.

    Attributes:
        resident_bytes: its weights there.
        spare_bytes: those of them that its last call did not need, which leave first.
        components: number of its components there.
        is_kept: whether it would stay in host memory; else it would have to be loaded again.
        is_wanted: whether it was called lately, so that it will be called again.
    """

    resident_bytes: int
    spare_bytes: int = 0
    components: int = 1
    is_kept: bool = True
    is_wanted: bool = True

    @property
    def return_seconds(self) -> float:
        """What it costs to have it back on the device."""
        if not self.is_wanted:
            return 0.0
        loading = 0.0 if self.is_kept else load_seconds(self.resident_bytes)
        return loading + move_seconds(self.resident_bytes, self.components)


@dataclass(frozen=True)
class Situation:
    """A device when a call begins.

    Attributes:
        size_bytes: of the device.
        resident: components of the call's model that are there.
        neighbours: the other models there, in the order in which they would leave.
        calls: expected number of calls like this one in a row, this one included.
    """

    size_bytes: int
    resident: Collection[str] = ()
    neighbours: Sequence[Neighbour] = ()
    calls: float = 1.0


def cheapest(plans: Sequence[Plan], situation: Situation) -> Plan:
    """The plan with the lowest cost over the expected calls; of equal ones the one that moves least.

    Args:
        plans: at least one; fastest first.
    """
    return min(plans, key=lambda plan: (round(price_seconds(plan, situation), 2), _bytes_to_move(plan, situation)))


def price_seconds(plan: Plan, situation: Situation) -> float:
    """What the plan costs in all expected calls, with the moves before the first and those it causes after."""
    arriving = [part.bytes for part in plan.components if _arrives(part.name, plan, situation)]
    return (
        situation.calls * plan.extra_seconds
        + move_seconds(sum(arriving), len(arriving))
        + _displaced_seconds(plan, situation)
    )


def gives_same_image(plan: Plan, other: Plan) -> bool:
    """Whether two plans for one workload give the same bits.

    Tiles, 8 bits, a T5 that is skipped or computed on the CPU, and whether blocks are compiled although LoRAs act,
    change them; where weights wait does not.
    """

    def traits(one: Plan) -> tuple[object, ...]:
        changing = (Placement.SKIPPED, Placement.CPU)
        moved = {name: placement for name, placement in one.placements.items() if placement in changing}
        return one.tile_side, one.fp8, moved, one.has_lora_slots

    return traits(plan) == traits(other)


def _arrives(name: str, plan: Plan, situation: Situation) -> bool:
    return plan.placements[name] is Placement.DEVICE and name not in situation.resident


def _bytes_to_move(plan: Plan, situation: Situation) -> int:
    return sum(part.bytes for part in plan.components if _arrives(part.name, plan, situation))


def _displaced_seconds(plan: Plan, situation: Situation) -> float:
    """Of the models that leave for this plan: first components that nobody needs, then whole models."""
    excess = sum(one.resident_bytes for one in situation.neighbours) + plan.peak_bytes - situation.size_bytes
    left = []
    for neighbour in situation.neighbours:
        spare = neighbour.spare_bytes if excess > 0 else 0
        excess -= spare
        left.append(neighbour.resident_bytes - spare)
    seconds = 0.0
    for neighbour, size in zip(situation.neighbours, left, strict=True):
        if excess <= 0:
            break
        excess -= size
        seconds += neighbour.return_seconds
    return seconds
