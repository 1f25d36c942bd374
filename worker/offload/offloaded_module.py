"""The weights of one component: on the device, in host memory, or in host memory with copies on the device.

Nothing writes weights while jobs run, so copies on the device are thrown away, never written back, and a host copy
stays valid while its component is on the device: to leave again costs nothing then. Knows neither plans nor
models.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from contracts.memory.plan import Placement
from worker.offload.host_buffer import ALIGNMENT_BYTES, HostBuffer
from worker.offload.stored_tensors import WrappedWeights, stored_tensors
from worker.offload.upload import uploader_of
from worker.runtime import slices

#: Placements whose weights are in host memory.
ON_HOST = frozenset({Placement.ON_DEMAND, Placement.STREAMED, Placement.SKIPPED})


class OffloadedModule:
    """One module and where its weights are.

    Attributes:
        placement: None until the first move, and after one that failed.
        tensors: what parameters and buffers are stored in, each once. They are the module's for life, only their
            `data` moves; found once: a walk through a module's layers takes longer than a small model's step.
        bytes: of all weights, as they are stored now.
        moved_bytes: copied to the device and to host memory since it was loaded, to stay there.
        arrivals: how often it was moved to the device, to stay there.
    """

    def __init__(self, module: torch.nn.Module, device: torch.device) -> None:
        """The module has just been loaded into host memory."""
        self.module = module
        self.placement: Placement | None = None
        self.tensors = stored_tensors((*module.parameters(), *module.buffers()))
        self._wrapped = WrappedWeights(module)
        self.bytes = self._count_bytes()
        self.moved_bytes = {"device": 0, "host": 0}
        self.arrivals = 0
        self._device = device
        self._buffer: HostBuffer | None = None
        self._host_copies: dict[int, torch.Tensor] = {}
        self._stored_dtypes: dict[int, torch.dtype] = {}

    @property
    def resident_bytes(self) -> int:
        """Bytes that stay on the device."""
        return self.bytes if self.placement is Placement.DEVICE else 0

    @property
    def device_bytes(self) -> int:
        """Bytes that are on the device at this moment, temporary copies included."""
        if self.placement not in ON_HOST:
            return self.resident_bytes
        return sum(tensor.nbytes for tensor in self.tensors if not self._is_on_host(tensor))

    @property
    def host_bytes(self) -> int:
        """Bytes in host memory, of copies that are kept beside the device's too."""
        if self._buffer is not None:
            return self._buffer.bytes
        return self.bytes - self.resident_bytes

    @property
    def computes_on(self) -> torch.device:
        """Where its inputs must be."""
        return torch.device("cpu") if self.placement is Placement.CPU else self._device

    def move(self, placement: Placement) -> None:
        """Move the weights to their placement; after an error the placement is unknown."""
        if self.placement is placement:
            return
        before, self.placement = self.placement, None
        if placement in ON_HOST:
            if before not in ON_HOST:
                self._to_host()
        elif placement is Placement.DEVICE:
            self._to_device()
        else:
            self._to_cpu()
        self._wrapped.renew(self.tensors)
        self.bytes = self._count_bytes()
        self.placement = placement

    def fetch(self, tensors: Iterable[torch.Tensor] | None = None) -> None:
        """Put copies of weights in host memory on the device; None: of all."""
        moved = [tensor for tensor in (self.tensors if tensors is None else tensors) if self._is_on_host(tensor)]
        for tensor in moved:
            # A copy even where the CPU is the device: a module on demand takes memory there, too.
            tensor.data = _copy(self._host_copies[id(tensor)], self._device)
        self._wrapped.renew(moved)

    def discard(self, tensors: Iterable[torch.Tensor] | None = None) -> None:
        """Throw the copies on the device away; None: all."""
        moved = list(self.tensors if tensors is None else tensors)
        for tensor in moved:
            tensor.data = self._host_copies[id(tensor)]
        self._wrapped.renew(moved)

    def release_host_copy(self) -> None:
        """Give the host copy of weights that are on the device back."""
        if self.placement is Placement.DEVICE:
            self._forget_host_copies()

    def _is_on_host(self, tensor: torch.Tensor) -> bool:
        return tensor.data_ptr() == self._host_copies[id(tensor)].data_ptr()

    def _count_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    def _to_host(self) -> None:
        self._restore_dtypes()
        if self._buffer is None:
            self._buffer = HostBuffer([tensor.data for tensor in self.tensors], self._device)
            self.moved_bytes["host"] += self.bytes
        copies = self._buffer.tensors
        self._host_copies = {id(tensor): copy for tensor, copy in zip(self.tensors, copies, strict=True)}
        _assign(self.tensors, copies)

    def _to_device(self) -> None:
        self._restore_dtypes()
        if self._buffer is None:
            _assign(self.tensors, _upload([tensor.data for tensor in self.tensors], self._device))
        else:
            _assign(self.tensors, [_copy(copy, self._device) for copy in self._buffer.tensors])
        self.moved_bytes["device"] += self.bytes
        self.arrivals += 1

    def _to_cpu(self) -> None:
        values = [tensor.data for tensor in self.tensors] if self._buffer is None else self._buffer.tensors
        _assign(self.tensors, [_aligned(value.cpu()) for value in slices.each(values)])
        self._host_copies = {}
        if not cpu_has_bfloat16():
            self._widen()
            self._forget_host_copies()

    def _forget_host_copies(self) -> None:
        self._buffer, self._host_copies = None, {}

    def _widen(self) -> None:
        """Store in float32: a CPU without bfloat16 arithmetic is several times faster with it, and as exact."""
        for tensor in slices.each(self.tensors):
            if tensor.dtype in (torch.bfloat16, torch.float16):
                self._stored_dtypes[id(tensor)] = tensor.dtype
                tensor.data = tensor.data.float()
        if self._stored_dtypes:
            self._wrapped.compute_in(torch.float32)

    def _restore_dtypes(self) -> None:
        """Back from float32, without loss: every value there came from the narrower dtype."""
        for tensor in self.tensors:
            dtype = self._stored_dtypes.pop(id(tensor), None)
            if dtype is not None:
                tensor.data = tensor.data.to(dtype)
                self._wrapped.compute_in(dtype)


def cpu_has_bfloat16() -> bool:
    """Whether this machine's processor multiplies bfloat16 in hardware."""
    cpu: Any = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def _assign(tensors: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.data = value


def _aligned(value: torch.Tensor) -> torch.Tensor:
    """The value, beginning where a cache line does.

    Elsewhere MKL's sums may differ in their last bits, so weights that a file was mapped to would give other
    bits than the same weights moved back from the device.
    """
    return value if value.data_ptr() % ALIGNMENT_BYTES == 0 else value.clone()


def _upload(values: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """The values on the device; themselves where they are there."""
    uploader = uploader_of(device)
    if uploader is None or any(value.device.type != "cpu" for value in values):
        return [value.to(device) for value in slices.each(values)]
    return uploader.upload(values)


def _copy(value: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy that may become a parameter's data, which a tensor made in inference mode may not."""
    with torch.inference_mode(mode=False):
        return value.to(device, non_blocking=True, copy=True)
