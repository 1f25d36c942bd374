"""Adapters: some stay loaded beside each warm model, a job's own act while it runs, none afterwards.

Nothing is put into the model. A loaded adapter is a set of small tensors of its own; while it acts, a hook on each
layer that it changes adds its part to the layer's result. So an adapter that is not asked for cannot act, a switch
costs a hook for each layer, the bare model is the bare model, and a load that fails has touched nothing.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from contracts.errors import FailureCode, JobFailed
from contracts.parameters import LoraParameters
from contracts.records import Weights
from worker import lora_files
from worker.families import FamilyCode
from worker.lora_stock import LoraStock
from worker.low_rank import Added, Layer

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Loaded:
    """One adapter, ready to act."""

    weights: Weights
    changes: lora_files.Changes
    size_bytes: int


class Adapters:
    """The adapters of one warm model. All methods are for the thread that runs its jobs, but for `loaded`.

    Attributes:
        loaded: names of the adapters that are ready to act, least recently used first.
        resident_bytes: what they take.
    """

    def __init__(self, base: Any, family: FamilyCode, stock: LoraStock, model: str = "") -> None:
        """`model` is what the tally calls it."""
        self.loaded: tuple[str, ...] = ()
        self.resident_bytes = 0
        self._base = base
        self._family = family
        self._stock = stock
        self._model = model
        self._acted_last: list[tuple[str, float]] = []
        self._by_hash: OrderedDict[str, _Loaded] = OrderedDict()
        self._acting = 0

    @property
    def clean(self) -> bool:
        """Whether nothing acts on the model."""
        return self._acting == 0

    @contextmanager
    def active(self, loras: Sequence[LoraParameters]) -> Iterator[list[Weights]]:
        """Exactly these adapters act inside; none afterwards.

        Raises:
            JobFailed: with LORA_INCOMPATIBLE; nothing acts then.
        """
        chosen = self._choose(loras)
        acting = [(adapter.weights.sha256, lora.scale) for adapter, lora in zip(chosen, loras, strict=True)]
        if acting != self._acted_last:
            self._stock.tally.count("adapter_switches", model=self._model)
            self._acted_last = acting
        try:
            with self._acting_on(chosen, [lora.scale for lora in loras]):
                yield [
                    adapter.weights.model_copy(update={"id": lora.name, "scale": lora.scale})
                    for adapter, lora in zip(chosen, loras, strict=True)
                ]
        finally:
            self._evict(keep=())

    def text_key(self, loras: Sequence[LoraParameters]) -> tuple[tuple[str, float], ...]:
        """What of these adapters shapes a prompt's embedding: hash and scale of those that change a text encoder.

        Raises:
            JobFailed: with LORA_INCOMPATIBLE.
        """
        return tuple(
            (adapter.weights.sha256, lora.scale)
            for adapter, lora in zip(self._choose(loras), loras, strict=True)
            if adapter.changes.keys() - {self._family.denoiser}
        )

    def _choose(self, loras: Sequence[LoraParameters]) -> list[_Loaded]:
        """The adapters, loaded where they are not; others may leave for them."""
        chosen: list[_Loaded] = []
        for lora in loras:
            chosen.append(self._load(lora))
            self._evict(keep=[adapter.weights.sha256 for adapter in chosen])
        return chosen

    def _load(self, lora: LoraParameters) -> _Loaded:
        path = self._stock.locate(lora)
        sha256 = self._stock.fingerprint(path)
        if sha256 not in self._by_hash:
            try:
                changes = lora_files.read(self._base, self._family, path)
            except (torch.OutOfMemoryError, MemoryError):
                raise
            except Exception as error:
                reason = (str(error).splitlines() or [""])[0][:300]
                message = f"LoRA {lora.name} cannot be used: {reason}"
                raise JobFailed(FailureCode.LORA_INCOMPATIBLE, message) from error
            size_bytes = sum(change.size_bytes for part in changes.values() for change in part.values())
            weights = Weights(id=lora.name, sha256=sha256, family=self._family.id)
            self._by_hash[sha256] = _Loaded(weights, changes, size_bytes)
            self._stock.tally.count("adapter_loads", model=self._model)
        self._by_hash.move_to_end(sha256)
        self._take_stock()
        return self._by_hash[sha256]

    def _evict(self, keep: Sequence[str]) -> None:
        for sha256 in [one for one in self._by_hash if one not in keep]:
            bounds = self._stock.bounds
            if len(self._by_hash) <= bounds.loaded and self.resident_bytes <= bounds.loaded_bytes:
                return
            del self._by_hash[sha256]
            self._stock.tally.count("adapter_evictions", model=self._model)
            self._take_stock()

    def _take_stock(self) -> None:
        self.loaded = tuple(adapter.weights.id for adapter in self._by_hash.values())
        self.resident_bytes = sum(adapter.size_bytes for adapter in self._by_hash.values())

    @contextmanager
    def _acting_on(self, chosen: Sequence[_Loaded], scales: Sequence[float]) -> Iterator[None]:
        """Whatever happens inside, or half-way into it, every hook is taken off again."""
        with ExitStack() as hooks:
            for layer, added in _sum_up(chosen, scales).items():
                handle = layer.register_forward_hook(_Adding(added))
                self._acting += 1
                hooks.callback(self._let_go, handle)
            yield

    def _let_go(self, handle: Any) -> None:
        handle.remove()
        self._acting -= 1


def _sum_up(chosen: Sequence[_Loaded], scales: Sequence[float]) -> dict[Layer, list[Added]]:
    """What to add to the result of each layer, in the job's order of adapters."""
    added: dict[Layer, list[Added]] = {}
    for adapter, scale in zip(chosen, scales, strict=True):
        for changes in adapter.changes.values():
            for layer, change in changes.items():
                added.setdefault(layer, []).append(change.scaled(layer, scale))
    return added


class _Adding:
    """The hook on one layer."""

    def __init__(self, added: Sequence[Added]) -> None:
        self._added = added

    def __call__(self, layer: torch.nn.Module, inputs: tuple[torch.Tensor], result: torch.Tensor) -> torch.Tensor:
        del layer
        dtype = result.dtype
        for add in self._added:
            result = add(inputs[0], result)
        return result.to(dtype)
