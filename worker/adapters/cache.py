"""Keeps LoRAs loaded beside one model: reads them when a job needs them, evicts the least recently used.

Nothing is put into the model. A loaded LoRA is a set of small tensors of its own, and acts through hooks
(`row_hooks.py`) or, on compiled blocks, from slots (`lora_slots.py`) while a call runs. So a LoRA that a job does
not name cannot act, switching costs one hook per layer, and a load that fails has changed nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from contracts.errors import AdapterDamaged, DarkroomError, first_line
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.jobs.receipt import Weights
from contracts.requests.entry_parameters import LoraParameters
from worker.adapters import reader
from worker.adapters.files import LoraFiles
from worker.adapters.inversions import LoadedInversion
from worker.adapters.layer_weight import Layer, dtype_of
from worker.adapters.lora_slots import LoraSlots
from worker.adapters.low_rank import LayerChange
from worker.adapters.perturbations import Perturbation, disturbed
from worker.adapters.references.attention_hooks import RowSpan, reference_images_act
from worker.adapters.references.image_prompts import ImagePrompt
from worker.adapters.row_hooks import LayerHooks, RowChange, joined_rows
from worker.families import DiffusersFamily
from worker.runtime.out_of_memory import is_out_of_memory


@dataclass(frozen=True, eq=False)
class LoadedLora:
    """One LoRA in memory.

    Attributes:
        weights: its id and content hash, for receipts.
        denoiser, text_encoders: the changed layers of the denoiser, and of all text encoders.
        size_bytes: of its tensors.
        workspace_bytes: more, that it takes while a call computes a layer.
    """

    weights: Weights
    denoiser: Mapping[Layer, LayerChange]
    text_encoders: Mapping[Layer, LayerChange]
    size_bytes: int
    workspace_bytes: int = 0


@dataclass(frozen=True)
class AdapterSet:
    """The adapters of one image, in the job's order.

    Attributes:
        adapters: loaded LoRAs with the job's name and scale for each.
        image_prompts: its reference images.
        inversions: its textual inversions, which act while its prompts are encoded, and not on the denoiser.
        perturbation: what disturbs the denoiser in its next call.
    """

    adapters: tuple[tuple[LoadedLora, LoraParameters], ...] = ()
    image_prompts: tuple[ImagePrompt, ...] = ()
    inversions: tuple[LoadedInversion, ...] = ()
    perturbation: Perturbation | None = None

    @property
    def weights(self) -> list[Weights]:
        """Names, content hashes and scales, for the receipt."""
        return [
            adapter.weights.model_copy(update={"id": lora.name, "scale": lora.scale})
            for adapter, lora in self.adapters
        ]

    @property
    def key(self) -> tuple[tuple[str, float], ...]:
        """Hash and scale of each LoRA, and names of other adapters; equal for sets with the same effect."""
        perturbed = () if self.perturbation is None else ((f"disturbed {self.perturbation.name}", 1.0),)
        return (*self.loaded_key, *perturbed)

    @property
    def loaded_key(self) -> tuple[tuple[str, float], ...]:
        """The same without the perturbation, for which nothing is loaded."""
        references = tuple((f"references {prompt.number}", prompt.scale) for prompt in self.image_prompts)
        return (*self.lora_key, *references)

    @property
    def lora_key(self) -> tuple[tuple[str, float], ...]:
        """Hash and scale of each LoRA."""
        return tuple((adapter.weights.sha256, lora.scale) for adapter, lora in self.adapters)

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each on the device, by what tells it from others."""
        loras = {
            adapter.weights.sha256: adapter.size_bytes + adapter.workspace_bytes for adapter, _ in self.adapters
        }
        return loras | {f"references {prompt.number}": prompt.size_bytes for prompt in self.image_prompts}

    @property
    def for_text_encoders(self) -> AdapterSet:
        """The part that changes a text encoder; its key is the part of a prompt embedding's cache key."""
        return AdapterSet(tuple((adapter, lora) for adapter, lora in self.adapters if adapter.text_encoders))


class LoraCache:
    """LoRAs loaded beside one model. Only the job thread may call its methods; any thread may read `loaded`.

    Attributes:
        loaded: names of the loaded LoRAs, least recently used first.
        resident_bytes: bytes of their tensors.
        uncompiled: why the denoiser's blocks cannot be called compiled now; empty where they can.
    """

    def __init__(
        self, base: Any, family: DiffusersFamily, files: LoraFiles, model: str = "", slots: LoraSlots | None = None
    ) -> None:
        """`base` is the pipeline that holds the components; `model` labels the counters."""
        self.loaded: tuple[str, ...] = ()
        self.resident_bytes = 0
        self.uncompiled = ""
        self._slots = slots or LoraSlots((), torch.device("cpu"), 0, 0)
        self._base = base
        self._family = family
        self._files = files
        self._model = model
        self._last_active = {AdapterSet().loaded_key}
        self._by_hash: OrderedDict[str, LoadedLora] = OrderedDict()
        self._hooks = LayerHooks()
        self._active = ExitStack()
        self._acting: tuple[object, ...] | None = None
        self._hooked_layers = 0

    @property
    def is_active(self) -> bool:
        """Whether anything acts on the model now."""
        return self._slots.is_active or self.acts_by_hooks

    @property
    def acts_by_hooks(self) -> bool:
        """Whether anything acts by hooks now, which a compiled denoiser would leave out."""
        return self._hooks.count + self._hooked_layers > 0

    def load(self, loras: Sequence[LoraParameters], keep: Iterable[AdapterSet] = ()) -> AdapterSet:
        """Load the adapters of one job, evicting others where a limit is reached, but none of `keep`.

        Raises:
            JobFailed: LORA_MISSING: its row or file is gone; LORA_DAMAGED: its file is not what it was, or not a
                safetensors file; LORA_INCOMPATIBLE: it does not fit the model.
            Unavailable: as `LoraFiles.locate`.
            Exception: failed allocations (`is_out_of_memory`), as they are.
        """
        pinned = {adapter.weights.sha256 for kept in keep for adapter, _ in kept.adapters}
        return AdapterSet(tuple((self._load(lora, pinned), lora) for lora in loras))

    def act(
        self,
        parts: Sequence[tuple[AdapterSet, int]],
        spans: Sequence[RowSpan] = (),
        no_slots: str = "not compiled",
    ) -> None:
        """From now on, let adapters act on their rows of the denoiser, until `rest` or the next `act`.

        Args:
            parts: the adapters of each range of rows, and how many rows it has, in order.
            spans: which rows of its job's own call each range has; all, where none are given.
            no_slots: why LoRAs must not act from slots; empty where they may.
        """
        spans = spans or [RowSpan(rows) for _, rows in parts]
        active = {adapters.key for adapters, _ in parts}
        prompts = [prompt for adapters, _ in parts for prompt in adapters.image_prompts]
        is_disturbed = any(adapters.perturbation for adapters, _ in parts)
        acting: tuple[object, ...] = tuple((adapters.key, rows) for adapters, rows in parts)
        if prompts or is_disturbed:
            acting = (*acting, *spans)
        elif len(active) == 1:
            acting = ((parts[0][0].key, 0),)  # they act on every row, however many there are
        if not no_slots:
            acting = ("slots", *acting, sum(rows for _, rows in parts))
        if acting == self._acting:
            return
        self.rest()
        loaded = {adapters.loaded_key for adapters, _ in parts}
        if loaded != self._last_active:
            self._files.counters.count("adapter_switches", model=self._model)
            self._last_active = loaded
        if is_disturbed or any(prompt.layers for prompt in prompts):
            no_slots = "references or guidance"
        no_slots = no_slots or self._fill_slots(parts)
        changes: dict[Layer, list[RowChange]] = {}
        each = [(list(zip(adapters.lora_key, adapters.adapters, strict=True)), rows) for adapters, rows in parts]
        for (_, scale), (adapter, _), rows in joined_rows(each):
            for layer, lora in adapter.denoiser.items():
                if no_slots or not self._slots.has(layer):
                    changes.setdefault(layer, []).append((lora.scaled(layer, scale), rows))
        self._active.enter_context(self._hooks.registered(changes))
        if prompts:
            by_rows = [(adapters.image_prompts, span) for (adapters, _), span in zip(parts, spans, strict=True)]
            self._hooked_layers += self._active.enter_context(reference_images_act(by_rows))
        if is_disturbed:
            self._hooked_layers += self._active.enter_context(
                disturbed([(adapters.perturbation, rows) for adapters, rows in parts])
            )
        in_blocks = self._hooked_layers > 0 or any(self._slots.has(layer) for layer in changes)
        self.uncompiled = f"adapters are active ({no_slots})" if in_blocks else ""
        self._acting = acting

    def rest(self) -> None:
        """Let no adapter act."""
        self._acting, self._hooked_layers, self.uncompiled = None, 0, ""
        active, self._active = self._active, ExitStack()
        active.close()
        self._slots.rest()

    def _fill_slots(self, parts: Sequence[tuple[AdapterSet, int]]) -> str:
        """Let LoRAs act from slots on compiled blocks; returns why they cannot, empty where they do."""
        return self._slots.act(
            [
                (adapters.lora_key, [(own.denoiser, lora.scale) for own, lora in adapters.adapters], rows)
                for adapters, rows in parts
            ]
        )

    def evict(self, keep: Iterable[AdapterSet]) -> None:
        """Drop the least recently used LoRAs beyond the limits, but none of `keep`."""
        self._evict({adapter.weights.sha256 for kept in keep for adapter, _ in kept.adapters})

    @contextmanager
    def active_in_text_encoders(self, adapters: AdapterSet) -> Iterator[None]:
        """Make adapters act on everything that the text encoders encode while inside."""
        changes: dict[Layer, list[RowChange]] = {}
        for adapter, parameters in adapters.adapters:
            for layer, lora in adapter.text_encoders.items():
                changes.setdefault(layer, []).append((lora.scaled(layer, parameters.scale), None))
        with self._hooks.registered(changes):
            yield

    def _load(self, lora: LoraParameters, pinned: set[str]) -> LoadedLora:
        """Load one LoRA and add it to `pinned`, which are not evicted."""
        path = self._files.locate(lora)
        sha256 = self._files.fingerprint(path)
        if sha256 not in self._by_hash:
            self._by_hash[sha256] = self._read(lora, path, sha256)
            self._files.counters.count("adapter_loads", model=self._model)
        self._by_hash.move_to_end(sha256)
        pinned.add(sha256)
        self._update_totals()
        self._evict(pinned)
        # Two rows may name the same content, one on a hub and one on this machine.
        return replace(self._by_hash[sha256], weights=self._files.weights(lora, sha256, self._family.id))

    def _read(self, lora: LoraParameters, path: Path, sha256: str) -> LoadedLora:
        try:
            components = reader.read(self._base, self._family, path)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            # Only our own reader's texts are for clients: those of libraries and of the system may have paths.
            is_known = isinstance(error, ValueError | DarkroomError)
            reason = first_line(error) if is_known else f"{type(error).__name__}, see the worker's log"
            message = f"LoRA {lora.name} cannot be used: {reason}"
            is_damaged = isinstance(error, AdapterDamaged)
            code = FailureCode.LORA_DAMAGED if is_damaged else FailureCode.LORA_INCOMPATIBLE
            raise JobFailed(code, message) from error
        layers = {layer: weights for part in components.values() for layer, weights in part.items()}
        denoiser = components.get(self._family.denoiser, {})
        return LoadedLora(
            Weights(id=lora.name, sha256=sha256, family=self._family.id),
            denoiser=denoiser,
            text_encoders={layer: weights for layer, weights in layers.items() if layer not in denoiser},
            # Layers may share the weights of a hypernetwork.
            size_bytes=sum({id(weights): weights.size_bytes for weights in layers.values()}.values()),
            workspace_bytes=max(
                weights.workspace_values * dtype_of(layer).itemsize for layer, weights in layers.items()
            ),
        )

    def _evict(self, keep: Collection[str]) -> None:
        """Drop the least recently used LoRAs that are not in `keep` until the limits hold."""
        limits = self._files.limits
        for sha256 in [sha256 for sha256 in self._by_hash if sha256 not in keep]:
            if len(self._by_hash) <= limits.loaded and self.resident_bytes <= limits.loaded_bytes:
                return
            del self._by_hash[sha256]
            self._files.counters.count("adapter_evictions", model=self._model)
            self._update_totals()

    def _update_totals(self) -> None:
        self.loaded = tuple(adapter.weights.id for adapter in self._by_hash.values())
        self.resident_bytes = sum(adapter.size_bytes for adapter in self._by_hash.values())
