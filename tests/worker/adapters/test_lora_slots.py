"""LoRAs on compiled blocks: from slots they act as by hooks, nothing is compiled again, no slot reaches others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from diffusers.models.attention import FeedForward
from torch._dynamo.utils import counters

from worker.adapters.layer_weight import Layer
from worker.adapters.lora_slots import LoraSlots, Part, SlotLinear
from worker.adapters.low_rank import LowRank
from worker.adapters.row_hooks import LayerHooks, RowChange, Rows
from worker.runtime.cuda_graphs import GraphPool
from worker.runtime.kernel_options import KernelOptions
from worker.runtime.kernels import Kernels

#: Compiled blocks differ from hooks by so much, of values up to 4: thin products are summed in another order.
_TOLERANCE = 2e-6
_RANK, _SLOTS = 8, 2
#: What tells a LoRA from others, in these tests.
_Name = str


class _Bench:
    """Two feed-forward blocks of a UNet, compiled, with slots; and LoRAs of all or of some of their layers."""

    def __init__(self) -> None:
        torch._dynamo.reset()
        torch.manual_seed(0)
        with torch.inference_mode(mode=False):
            blocks = [FeedForward(16).eval() for _ in range(2)]
            self.blocks = torch.nn.ModuleList(blocks).requires_grad_(requires_grad=False)
            self._inputs = torch.randn(4, 6, 16)
            self.linear = [layer for layer in self.blocks.modules() if isinstance(layer, torch.nn.Linear)]
            self.loras: dict[_Name, dict[Layer, LowRank]] = {
                "whole": self._lora(self.linear, rank=8, alpha=0.5),
                "thin": self._lora(self.linear, rank=3, alpha=1.0),
                "partial": self._lora(self.linear[::3], rank=5, alpha=0.3),
            }
        options = KernelOptions(compile="blocks", compile_backend="eager")
        self.kernels = Kernels(options, "blocks", GraphPool())
        self.kernels.compile(self.blocks, ("FeedForward",))
        self.slots = LoraSlots(self.kernels.compiled, torch.device("cpu"), _SLOTS, _RANK)

    def _lora(self, layers: list[torch.nn.Linear], rank: int, alpha: float) -> dict[Layer, LowRank]:
        return {
            layer: LowRank(torch.randn(rank, layer.in_features), torch.randn(layer.out_features, rank) / 16, alpha)
            for layer in layers
        }

    def part(self, *names: _Name, scale: float = 0.7, rows: int = 1) -> Part:
        key = tuple((name, scale) for name in names)
        return key, [(self.loras[name], scale) for name in names], rows

    def compute(self, rows: int) -> torch.Tensor:
        with torch.inference_mode():
            hidden = self._inputs[:rows].clone()  # as the blocks give it to each other
            for block in self.blocks:
                hidden = block(hidden) + hidden
            return hidden

    def compiled(self, *parts: Part) -> torch.Tensor:
        """What a compiled call of these rows gives; all parts must find room."""
        try:
            assert self.slots.act(parts) == ""
            with self.kernels.running():
                return self.compute(sum(rows for _, _, rows in parts))
        finally:
            self.slots.rest()

    def hooked(self, *parts: Part) -> torch.Tensor:
        """The same by hooks on blocks that are not compiled."""
        total, start = sum(rows for _, _, rows in parts), 0
        changes: dict[Layer, list[RowChange]] = {}
        for _, loras, rows in parts:
            for layers, scale in loras:
                for layer, change in layers.items():
                    own = Rows(start, start + rows, total)
                    changes.setdefault(layer, []).append((change.scaled(layer, scale), own))
            start += rows
        with LayerHooks().registered(changes):
            return self.compute(total)


@pytest.fixture(scope="module")
def bench() -> _Bench:
    return _Bench()


@contextmanager
def _nothing_is_compiled() -> Iterator[None]:
    before = counters["stats"]["unique_graphs"]
    yield
    assert counters["stats"]["unique_graphs"] == before


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return float((one - other).abs().max()) <= _TOLERANCE


def test_none_one_mixed_and_refilled_slots_give_what_hooks_give_without_compiling_again(bench: _Bench) -> None:
    part, none = bench.part, bench.part(rows=4)
    counters.clear()
    bare = bench.compiled(none)
    assert counters["stats"]["unique_graphs"] == 1
    whole = bench.compiled(part("whole", rows=4))
    mixed = bench.compiled(part("thin"), part(), part("whole", rows=2))
    # Without LoRAs, with the same in all rows, and with different ones.
    assert counters["stats"]["unique_graphs"] == 3
    assert not counters["graph_break"]
    assert float((whole - bare).abs().max()) > 0.1
    with _nothing_is_compiled():
        assert _close(whole, bench.hooked(part("whole", rows=4)))
        assert torch.equal(mixed[1], bare[1])
        for parts in (
            [part("thin"), part(), part("whole", rows=2)],
            [part("thin", "partial"), part(rows=3)],
            [part("partial", scale=-1.5, rows=3), part("whole", scale=0.0)],
            [part("whole"), part("thin"), part("thin"), part("whole")],
        ):
            assert _close(bench.compiled(*parts), bench.hooked(*parts))
        assert torch.equal(bench.compiled(none), bare)
        bench.slots.release()
        assert bench.slots.size_bytes == 0
        assert torch.equal(bench.compiled(none), bare)
        assert torch.equal(bench.compiled(part("whole", rows=4)), whole)


def test_a_refilled_slot_keeps_nothing_in_layers_that_the_next_lora_leaves_alone(bench: _Bench) -> None:
    bench.slots.release()
    alone = bench.compiled(bench.part("partial", rows=4))
    for name in ("whole", "thin"):  # as many as there are slots
        bench.compiled(bench.part(name, rows=4))
    assert torch.equal(bench.compiled(bench.part("partial", rows=4)), alone)


def test_infinite_values_in_a_slot_reach_no_row_of_others(bench: _Bench) -> None:
    parts = [bench.part("whole"), bench.part(), bench.part("thin", rows=2)]
    right, bare = bench.compiled(*parts), bench.compiled(bench.part(rows=4))
    slot = bench.slots._held[parts[0][0]]
    for layer in bench.linear:
        assert isinstance(layer, SlotLinear)
        layer.slot_up[slot].fill_(float("inf"))
    with _nothing_is_compiled():
        spoilt = bench.compiled(*parts)
        assert not torch.isfinite(spoilt[0]).any()
        assert torch.equal(spoilt[1:], right[1:])
        assert torch.equal(spoilt[1], bare[1])
        bench.slots.release()
        assert torch.equal(bench.compiled(bench.part(rows=4)), bare)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (lambda bench: [bench.part("whole", "thin")], "rank 11, of 8"),
        (lambda bench: [bench.part("thin", scale=one) for one in (1, 2, 3)], "3 sets of LoRAs in one call, of 2"),
        (lambda bench: [_with_bias(bench)], "not only plain LoRAs of linear layers"),
    ],
)  # fmt: skip
def test_what_slots_cannot_hold_is_said_and_nothing_acts(
    parts: Callable[[_Bench], list[Part]], reason: str, bench: _Bench
) -> None:
    assert bench.slots.act(parts(bench)) == reason
    assert not bench.slots.is_active
    assert all(layer.row_slots is None for layer in bench.linear if isinstance(layer, SlotLinear))


def _with_bias(bench: _Bench) -> Part:
    layer = bench.linear[0]
    change = LowRank(torch.ones(1, 16), torch.ones(128, 1), 1.0, bias=torch.ones(128))
    return ("with a bias",), [({layer: change}, 1.0)], 1


def test_without_slots_the_layers_are_left_as_they_are_and_layers_outside_of_blocks_always(bench: _Bench) -> None:
    block = FeedForward(16)
    slots = LoraSlots([block], torch.device("cpu"), 0, _RANK)
    assert not any(isinstance(layer, SlotLinear) for layer in block.modules())
    assert slots.has(block.net[2])
    assert slots.act([bench.part("thin")]) == "no slots"
    assert not bench.slots.has(block.net[2])
    outside = {block.net[2]: bench.loras["thin"][bench.linear[1]]}
    assert bench.slots.act([(("outside",), [(outside, 1.0)], 4)]) == ""
    with bench.kernels.running():
        assert _close(bench.compute(4), bench.compiled(bench.part(rows=4)))
    bench.slots.rest()
