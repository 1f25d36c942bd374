"""Memory of a CUDA card that plans may use: its size less the driver's part, CUDA's context and a margin. Pure.

The worker asks the card itself (`worker/runtime/device.py`) and leaves the same margin.
"""

from __future__ import annotations

from dataclasses import dataclass

#: What its driver keeps of the memory that a card is sold with: CUDA's total is 79.18 GiB on an H100 of 80 GiB,
#: and 23.5 to 23.7 GiB on cards of 24 GiB. This is the most of these: a plan that just fits must fit on each.
_DRIVER_SHARE, _DRIVER_BYTES = 0.01, 2**28
#: CUDA's context: an H100 has 0.52 GiB less free memory once it exists (docs/gpu.md).
_CONTEXT_BYTES = int(0.52 * 2**30)
#: Free memory that plans leave alone: kernels are loaded when first used, and the allocator cannot use every gap.
_MARGIN_SHARE, _MIN_MARGIN_BYTES, _MAX_MARGIN_BYTES = 0.02, 2**28, 2**30


@dataclass(frozen=True)
class Card:
    """A card by the memory that it is sold with, in bytes, and where that goes.

    Attributes:
        driver_bytes, context_bytes: what its driver and CUDA's context take.
        margin_bytes: what plans leave free.
        budget_bytes: what they may use.
    """

    card_bytes: int
    driver_bytes: int
    context_bytes: int
    margin_bytes: int
    budget_bytes: int


def describe_card(card_bytes: int) -> Card:
    """What a card of this size gives a worker that has it for itself."""
    driver = min(card_bytes, int(_DRIVER_SHARE * card_bytes) + _DRIVER_BYTES)
    total = card_bytes - driver
    budget = budget_of_card(max(0, total - _CONTEXT_BYTES), total)
    return Card(card_bytes, driver, _CONTEXT_BYTES, _margin(total), budget)


def budget_of_card(free_bytes: int, total_bytes: int) -> int:
    """What plans may use of a card with so much free memory, once CUDA's context exists."""
    return max(0, free_bytes - _margin(total_bytes))


def _margin(total_bytes: int) -> int:
    return min(max(int(_MARGIN_SHARE * total_bytes), _MIN_MARGIN_BYTES), _MAX_MARGIN_BYTES)
