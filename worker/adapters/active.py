"""Adapters: some stay loaded beside each warm model, each image's own act while it runs, none afterwards.

Nothing is put into the model. A loaded adapter is a set of small tensors of its own; while it acts, a hook on each
layer that it changes adds its part to the rows of those images that asked for it. So an adapter that is not asked
for cannot act, a switch costs a hook for each layer, the bare model is the bare model, and a load that fails has
touched nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from contracts.errors import FailureCode, JobFailed
from contracts.queue.records import Weights
from contracts.requests.parameters import LoraParameters
from worker.adapters import reader as lora_files
from worker.adapters.files import LoraFiles
from worker.adapters.layers import ImageRows, Layer, LoraHook, LowRank, Share
from worker.families import FamilyCode


@dataclass(frozen=True, eq=False)
class Loaded:
    """One adapter, ready to act.

    Attributes:
        weights: its id and content hash, for receipts.
        denoiser, texts: the changes of each layer of the denoiser, and of all text encoders.
    """

    weights: Weights
    denoiser: Mapping[Layer, LowRank]
    texts: Mapping[Layer, LowRank]
    size_bytes: int


@dataclass(frozen=True)
class AdapterSet:
    """What acts for one image: loaded adapters, each with the job's name and scale for it, in the job's order."""

    adapters: tuple[tuple[Loaded, LoraParameters], ...] = ()

    @property
    def weights(self) -> list[Weights]:
        """For the receipt."""
        return [
            adapter.weights.model_copy(update={"id": lora.name, "scale": lora.scale})
            for adapter, lora in self.adapters
        ]

    @property
    def key(self) -> tuple[tuple[str, float], ...]:
        """Hash and scale of each: equal for sets that act alike."""
        return tuple((adapter.weights.sha256, lora.scale) for adapter, lora in self.adapters)

    @property
    def in_texts(self) -> AdapterSet:
        """Those that change a text encoder: their key is what of the set shapes a prompt's embedding."""
        return AdapterSet(tuple((adapter, lora) for adapter, lora in self.adapters if adapter.texts))


class ActiveLoras:
    """The adapters of one warm model. All methods are for the thread that runs its jobs, but for `loaded`.

    Attributes:
        loaded: names of the adapters that are ready to act, least recently used first.
        resident_bytes: what they take.
    """

    def __init__(self, base: Any, family: FamilyCode, stock: LoraFiles, model: str = "") -> None:
        """`model` is what the tally calls it."""
        self.loaded: tuple[str, ...] = ()
        self.resident_bytes = 0
        self._base = base
        self._family = family
        self._stock = stock
        self._model = model
        self._acted_last = {AdapterSet().key}
        self._by_hash: OrderedDict[str, Loaded] = OrderedDict()
        self._acting = 0

    @property
    def clean(self) -> bool:
        """Whether nothing acts on the model."""
        return self._acting == 0

    def choose(self, wanted: Sequence[Sequence[LoraParameters]]) -> list[AdapterSet | Exception]:
        """The adapters of each job of a batch, loaded where they are not; others may leave for them.

        A job whose adapters cannot be had gets the reason, which is `JobFailed` with LORA_INCOMPATIBLE where it is
        the file's fault; the other jobs are none the worse.

        Raises:
            torch.OutOfMemoryError, MemoryError: there is no room for them.
        """
        chosen: list[AdapterSet | Exception] = []
        kept: set[str] = set()
        for loras in wanted:
            try:
                chosen.append(AdapterSet(tuple((self._load(lora, kept), lora) for lora in loras)))
            except (torch.OutOfMemoryError, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this job's
                chosen.append(error)
        return chosen

    @contextmanager
    def active(self, sets: Sequence[AdapterSet]) -> Iterator[None]:
        """Each image's adapters act on its rows of the denoiser inside, and none afterwards. One set an image."""
        acting = {one.key for one in sets}
        if acting != self._acted_last:
            self._stock.tally.count("adapter_switches", model=self._model)
            self._acted_last = acting
        shares: dict[Layer, list[Share]] = {}
        for adapter, scale, rows in _divide(sets):
            for layer, change in adapter.denoiser.items():
                shares.setdefault(layer, []).append((change.scaled(layer, scale), rows))
        try:
            with self._hooked(shares):
                yield
        finally:
            self._evict(keep=())

    @contextmanager
    def active_in_texts(self, adapters: AdapterSet) -> Iterator[None]:
        """These act on all that the text encoders encode inside, and none afterwards."""
        shares: dict[Layer, list[Share]] = {}
        for adapter, lora in adapters.adapters:
            for layer, change in adapter.texts.items():
                shares.setdefault(layer, []).append((change.scaled(layer, lora.scale), None))
        with self._hooked(shares):
            yield

    def _load(self, lora: LoraParameters, kept: set[str]) -> Loaded:
        """One adapter; it joins those that must not leave."""
        path = self._stock.locate(lora)
        sha256 = self._stock.fingerprint(path)
        if sha256 not in self._by_hash:
            self._by_hash[sha256] = self._read(lora, path, sha256)
            self._stock.tally.count("adapter_loads", model=self._model)
        self._by_hash.move_to_end(sha256)
        kept.add(sha256)
        self._take_stock()
        self._evict(kept)
        return self._by_hash[sha256]

    def _read(self, lora: LoraParameters, path: Path, sha256: str) -> Loaded:
        try:
            changes = lora_files.read(self._base, self._family, path)
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0][:300]
            message = f"LoRA {lora.name} cannot be used: {reason}"
            raise JobFailed(FailureCode.LORA_INCOMPATIBLE, message) from error
        every = {layer: change for part in changes.values() for layer, change in part.items()}
        denoiser = changes.get(self._family.denoiser, {})
        return Loaded(
            Weights(id=lora.name, sha256=sha256, family=self._family.id),
            denoiser=denoiser,
            texts={layer: change for layer, change in every.items() if layer not in denoiser},
            size_bytes=sum(change.size_bytes for change in every.values()),
        )

    def _evict(self, keep: Collection[str]) -> None:
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
    def _hooked(self, shares: Mapping[Layer, Sequence[Share]]) -> Iterator[None]:
        """Whatever happens inside, or half-way into it, every hook is taken off again."""
        with ExitStack() as hooks:
            for layer, own in shares.items():
                # Before all other hooks: those of a placement take the layer's weights away.
                handle = layer.register_forward_hook(LoraHook(own), prepend=True)
                self._acting += 1
                hooks.callback(self._let_go, handle)
            yield

    def _let_go(self, handle: Any) -> None:
        handle.remove()
        self._acting -= 1


def _divide(sets: Sequence[AdapterSet]) -> Iterator[tuple[Loaded, float, ImageRows | None]]:
    """Who acts for whom, each image's adapters in its job's order; images that agree are served together."""
    for place in range(max(len(one.adapters) for one in sets)):
        served: dict[tuple[str, float], list[int]] = {}
        adapters: dict[tuple[str, float], Loaded] = {}
        for image, one in enumerate(sets):
            if place < len(one.adapters):
                key = one.key[place]
                adapters[key] = one.adapters[place][0]
                served.setdefault(key, []).append(image)
        for (sha256, scale), images in served.items():
            rows = None if len(images) == len(sets) else ImageRows(images, of=len(sets))
            yield adapters[sha256, scale], scale, rows
