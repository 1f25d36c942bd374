"""Slots of fixed shape beside the layers of compiled blocks: LoRAs act there, and nothing is compiled again.

Compiled code reads a layer's slots as it reads its weights. Each row of a call takes the slot that an index names;
slot 0 holds zeros, for rows without a LoRA. LoRAs come and go by copies into slots, and the index is a tensor, of
one number where all rows have one slot. No row's result depends on what another row's slot holds, not even on
infinite values. Layers outside of the blocks keep their hooks (`row_hooks.py`), which compute the same. Knows
neither files nor plans.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch.nn import functional

from worker.adapters.layer_weight import Layer, dtype_of
from worker.adapters.low_rank import LayerChange, LowRank

#: The LoRAs of one image: what each changes in the denoiser, and its scale in the request.
Loras = Sequence[tuple[Mapping[Layer, LayerChange], float]]
#: Of a range of rows: what tells its LoRAs from others, empty for none; the LoRAs; the number of rows.
Part = tuple[tuple[object, ...], Loras, int]


class SlotLinear(torch.nn.Linear):
    """A linear layer that adds to each row what the row's slot holds.

    Attributes:
        row_slots: (rows,), the slot of each row of the call; (1,): of all rows, however many the layer is given;
            None: it computes as a linear layer.
        slot_down: (slots, rank, inputs).
        slot_scales: (slots, rank), of each row of `slot_down`.
        slot_up: (slots, outputs, rank).
    """

    row_slots: torch.Tensor | None
    slot_down: torch.Tensor
    slot_scales: torch.Tensor
    slot_up: torch.Tensor

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - the name in torch
        """Compute the layer; `input` is (rows, …, inputs).

        Raises:
            RuntimeError: rows have different slots, and the layer was given another number of rows than the call.
        """
        output = torch.nn.Linear.forward(self, input)
        if self.row_slots is None:
            return output
        down, scales, up = (one[self.row_slots] for one in (self.slot_down, self.slot_scales, self.slot_up))
        if len(self.row_slots) == 1:
            return output + functional.linear(functional.linear(input, down[0]) * scales[0], up[0])
        thin = torch.bmm(input.reshape(input.shape[0], -1, input.shape[-1]), down.transpose(1, 2))
        added = torch.bmm(thin * scales[:, None], up.transpose(1, 2))
        return output + added.reshape(output.shape)


class LoraSlots:
    """The slots of one model. Memory is taken when a LoRA first needs it, and given back by `release`.

    Attributes:
        size_bytes: that they take now.
        rows_told: rows whose slot is told apart now; 1 where all have one slot, 0 where none acts.
    """

    def __init__(self, blocks: Sequence[torch.nn.Module], device: torch.device, slots: int, rank: int) -> None:
        """Take over the linear layers of the blocks, which nothing changes until LoRAs act.

        Args:
            blocks: those that are compiled; they have not run yet.
            slots: images with different LoRAs or scales that a call may have; 0: none.
            rank: the most that the ranks of one image's LoRAs may add up to.
        """
        self.size_bytes = 0
        self.rows_told = 0
        self._device, self._slots, self._rank = device, slots, rank
        self._inside = frozenset(layer for block in blocks for layer in block.modules())
        #: Slot of what it holds, least recently used first.
        self._held: OrderedDict[tuple[object, ...], int] = OrderedDict()
        #: Number of rows -> its index. Compiled code may keep the addresses of tensors.
        self._indices: dict[int, torch.Tensor] = {}
        self._layers: dict[Layer, SlotLinear] = {}
        for layer in self._inside if slots else ():
            if type(layer) is torch.nn.Linear:
                layer.__class__ = SlotLinear
                assert isinstance(layer, SlotLinear)  # noqa: S101 - for the type checker
                layer.row_slots = None
                self._layers[layer] = layer

    @property
    def is_active(self) -> bool:
        """Whether LoRAs act from them now."""
        return self.rows_told > 0

    def has(self, layer: torch.nn.Module) -> bool:
        """Whether a layer is part of a compiled block."""
        return layer in self._inside

    def act(self, parts: Sequence[Part]) -> str:
        """Let LoRAs act on their rows of every compiled layer, until `rest`.

        Returns:
            Why they cannot, so that nothing was done; empty where they do.
        """
        wanted = {key: loras for key, loras, _ in parts if key}
        reason = self._refuse(wanted)
        if reason or not wanted or not self._layers:
            return reason
        try:
            self._allocate()
        except Exception:  # the device's memory is full: what was allocated must not stay
            self.release()
            raise
        for key, loras in wanted.items():
            if key not in self._held:
                self._fill(key, loras, self._free_slot(wanted))
            self._held.move_to_end(key)
        slots = [self._held[key] if key else 0 for key, _, rows in parts for _ in range(rows)]
        index = self._index(slots[:1] if len({*slots}) == 1 else slots)
        self.rows_told = len(index)
        for layer in self._layers.values():
            layer.row_slots = index
        return ""

    def rest(self) -> None:
        """Let none act: every layer computes as if it had no slots."""
        for layer in self._layers.values() if self.is_active else ():
            layer.row_slots = None
        self.rows_told = 0

    def release(self) -> None:
        """Let none act, and give the memory back."""
        self.rest()
        self.size_bytes = 0
        self._held.clear()
        self._indices.clear()
        for layer in self._layers.values():
            for name in ("slot_down", "slot_scales", "slot_up"):
                layer.__dict__.pop(name, None)

    def _refuse(self, wanted: Mapping[tuple[object, ...], Loras]) -> str:
        """Why these cannot act; names nothing of a job, since others read it on their receipts."""
        if len(wanted) > self._slots:
            return f"{len(wanted)} sets of LoRAs in one call, of {self._slots}" if self._slots else "no slots"
        for loras in wanted.values():
            ranks: dict[Layer, int] = {}
            for layer, change in self._changes(loras):
                if layer not in self._layers or not isinstance(change, LowRank) or not _is_plain(change):
                    return "not only plain LoRAs of linear layers"
                ranks[layer] = ranks.get(layer, 0) + len(change.down)
            if (rank := max(ranks.values(), default=0)) > self._rank:
                return f"rank {rank}, of {self._rank}"
        return ""

    def _changes(self, loras: Loras) -> Iterator[tuple[Layer, LayerChange]]:
        for changes, _ in loras:
            yield from ((layer, change) for layer, change in changes.items() if layer in self._inside)

    def _allocate(self) -> None:
        if self.size_bytes:
            return
        slots, rank = self._slots + 1, self._rank
        # Tensors of inference mode would be compiled for apart.
        with torch.inference_mode(mode=False):
            for layer in self._layers.values():
                zeros = partial(torch.zeros, dtype=dtype_of(layer), device=self._device)
                layer.slot_down = zeros(slots, rank, layer.in_features)
                layer.slot_scales = zeros(slots, rank)
                layer.slot_up = zeros(slots, layer.out_features, rank)
        tensors = [(layer.slot_down, layer.slot_scales, layer.slot_up) for layer in self._layers.values()]
        self.size_bytes = sum(tensor.nbytes for own in tensors for tensor in own)

    def _free_slot(self, wanted: Mapping[tuple[object, ...], Loras]) -> int:
        """A slot that holds nothing, else that of the least recently used that is not wanted now."""
        unused = set(range(1, self._slots + 1)) - set(self._held.values())
        if unused:
            return min(unused)
        return self._held.pop(next(key for key in self._held if key not in wanted))

    def _fill(self, key: tuple[object, ...], loras: Loras, slot: int) -> None:
        """Put these LoRAs one beside the other into a slot, whose old content goes from every layer."""
        for own in self._layers.values():
            for tensor in (own.slot_down, own.slot_scales, own.slot_up):
                tensor[slot].zero_()
        start: dict[Layer, int] = {}
        for changes, scale in loras:
            for layer, own in self._layers.items():
                change = changes.get(layer)
                if not isinstance(change, LowRank):
                    continue
                first = start.get(layer, 0)
                stop = start[layer] = first + len(change.down)
                own.slot_down[slot, first:stop].copy_(change.down)
                own.slot_scales[slot, first:stop].fill_(scale * change.alpha)
                own.slot_up[slot, :, first:stop].copy_(change.up)
        self._held[key] = slot  # last: a slot that was filled in part is nobody's

    def _index(self, slots: Sequence[int]) -> torch.Tensor:
        rows = len(slots)
        if rows not in self._indices:
            with torch.inference_mode(mode=False):
                self._indices[rows] = torch.zeros(rows, dtype=torch.long, device=self._device)
        return self._indices[rows].copy_(torch.tensor(slots))


def _is_plain(change: LowRank) -> bool:
    return change.bias is None and change.magnitude is None
