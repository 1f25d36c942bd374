"""How much device memory jobs take, and an error where they exceed the budget.

CUDA counts for itself, and its allocator keeps to a share of the card. The CPU does neither, so there every tensor
that an operation makes is counted while the tracker runs: a budget on the CPU behaves as a card of that size
would. Scratch memory inside one operation is not seen. Knows nothing of models or plans.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class MemoryTracker:
    """The use of the device's memory, under a budget.

    Attributes:
        peak_bytes: the most that was in use inside the last `running`, since its last `take_peak`; None where
            nothing was measured.
        retries: how often CUDA's allocator had to return its unused memory and try again inside the last
            `running`, each time waiting for the device; 0 on the CPU.
    """

    def __init__(self, device: torch.device, budget_bytes: int | None) -> None:
        """`budget_bytes` None: nothing is enforced, and on the CPU nothing is counted."""
        self.peak_bytes: int | None = None
        self.retries = 0
        self._device = device
        self._budget_bytes = budget_bytes
        self._counting: _Counting | None = None
        self._retries_before = 0
        if device.type == "cuda":
            # Also without a budget: the share is the process', and another tracker may have set it before.
            total_bytes = torch.cuda.get_device_properties(device).total_memory
            share = min(1.0, (budget_bytes or total_bytes) / total_bytes)
            torch.cuda.set_per_process_memory_fraction(share, device)

    @contextmanager
    def running(self, resident_bytes: int) -> Iterator[None]:
        """Measure what runs inside.

        Args:
            resident_bytes: weights that are on the device before.

        Raises:
            torch.OutOfMemoryError: inside, where the budget is exceeded.
        """
        self.peak_bytes, self.retries = None, 0
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            before = self._retries_before = _allocator_retries(self._device)
            try:
                yield
            finally:
                self.peak_bytes = torch.cuda.max_memory_allocated(self._device)
                self.retries = _allocator_retries(self._device) - before
        elif self._budget_bytes is None:
            yield
        else:
            self._counting = _Counting(resident_bytes, self._budget_bytes)
            try:
                with self._counting:
                    yield
            finally:
                self.peak_bytes = self._counting.peak_bytes
                self._counting = None

    def take_peak(self) -> tuple[int | None, int]:
        """Inside `running`: the peak in bytes and the allocator's retries since the last `take_peak`."""
        if self._device.type == "cuda":
            retries = _allocator_retries(self._device)
            taken = torch.cuda.max_memory_allocated(self._device), retries - self._retries_before
            self._retries_before = retries
            torch.cuda.reset_peak_memory_stats(self._device)
            return taken
        if self._counting is None:
            return None, 0
        return self._counting.take_peak(), 0

    def set_resident(self, resident_bytes: int) -> None:
        """Inside `running`: so many bytes of weights are on the device now; CUDA counts them itself."""
        if self._counting is not None:
            self._counting.set_resident(resident_bytes)

    def pause(self) -> None:
        """From here on, computation takes host memory; needed only where the CPU is the device."""
        if self._counting is not None:
            self._counting.paused += 1

    def resume(self) -> None:
        """End one `pause`."""
        if self._counting is not None:
            self._counting.paused -= 1


def _allocator_retries(device: torch.device) -> int:
    return int(torch.cuda.memory_stats(device).get("num_alloc_retries", 0))


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counter of the bytes of storages that operations make, until they are freed; a view makes none."""

    def __init__(self, resident_bytes: int, budget_bytes: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.used_bytes = self.peak_bytes = self._resident_bytes = resident_bytes
        self.paused = 0
        self._budget_bytes = budget_bytes
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def take_peak(self) -> int:
        """The most that was in use since the last time."""
        peak, self.peak_bytes = self.peak_bytes, self.used_bytes
        return peak

    def set_resident(self, resident_bytes: int) -> None:
        """Count other weights than before as resident."""
        self.used_bytes += resident_bytes - self._resident_bytes
        self._resident_bytes = resident_bytes
        self.peak_bytes = max(self.peak_bytes, self.used_bytes)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, then count the storages that it made."""
        del types
        result = func(*args, **(kwargs or {}))
        if not self.paused:
            given = {storage._cdata for storage in _storages((args, kwargs))}
            for storage in _storages(result):
                if storage._cdata not in given and storage._cdata not in self._known:
                    self._count(storage)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()

        def forget(_: object) -> None:
            del self._known[key]
            self.used_bytes -= size

        self._known[key] = weakref.ref(storage, forget)
        self.used_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.used_bytes)
        if self.used_bytes > self._budget_bytes:
            message = f"budget exceeded: {self.used_bytes} bytes in use of {self._budget_bytes}"
            raise torch.OutOfMemoryError(message)


def _storages(tree: Any) -> Iterator[torch.UntypedStorage]:
    for leaf in tree_iter(tree):
        if isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu":
            yield leaf.untyped_storage()
