"""Where the weights of one component are: on the device, in host memory, or there with copies on loan.

Nothing writes weights while jobs run, so a copy that has served is thrown away, never written back. Knows neither
plans nor models.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from contracts.memory.plan import Placement

#: Placements whose weights are parked in host memory.
PARKED = frozenset({Placement.ON_DEMAND, Placement.STREAMED, Placement.SKIPPED})


class OffloadedModule:
    """One module and its placement.

    Attributes:
        placement: None until the first move, and where one has failed.
        tensors: parameters and buffers, each once. They are the module's for life, only their data moves; found
            once, since to walk through a module's layers takes longer than a small model's step.
        bytes: of all weights, as they are there.
    """

    def __init__(self, module: torch.nn.Module, device: torch.device) -> None:
        """The module has just been loaded, into host memory."""
        self.module = module
        self.placement: Placement | None = None
        every = (*module.parameters(), *module.buffers())
        self.tensors = list({id(tensor): tensor for tensor in every}.values())
        self.bytes = self._count_bytes()
        self._device = device
        self._parked: dict[int, torch.Tensor] = {}
        self._narrow: dict[int, torch.dtype] = {}

    @property
    def resident_bytes(self) -> int:
        """Bytes that are on the device to stay."""
        return self.bytes if self.placement is Placement.DEVICE else 0

    @property
    def device_bytes(self) -> int:
        """Bytes that are on the device at this moment, copies included."""
        if self.placement not in PARKED:
            return self.resident_bytes
        here = [one for one in self.tensors if one.data_ptr() != self._parked[id(one)].data_ptr()]
        return sum(tensor.nbytes for tensor in here)

    @property
    def computes_on(self) -> torch.device:
        """Where its inputs must be."""
        return torch.device("cpu") if self.placement is Placement.CPU else self._device

    def move(self, placement: Placement) -> None:
        """Make it live there; on an error nothing is known of its placement any more."""
        if self.placement is placement:
            return
        before, self.placement = self.placement, None
        if placement in PARKED and before not in PARKED:
            self._park()
        elif placement is Placement.DEVICE:
            self._unpark()
            _assign(self.tensors, [tensor.data.to(self._device) for tensor in self.tensors])
        elif placement is Placement.CPU:
            self._unpark()
            _assign(self.tensors, [tensor.data.cpu() for tensor in self.tensors])
        if placement is Placement.CPU:
            self._widen()
        self.bytes = self._count_bytes()
        self.placement = placement

    def fetch(self, tensors: Iterable[torch.Tensor] | None = None) -> None:
        """Put copies of parked weights on the device; None: of all."""
        for tensor in self.tensors if tensors is None else tensors:
            parked = self._parked[id(tensor)]
            if tensor.data_ptr() == parked.data_ptr():
                # On the CPU, too, the copy is one: what visits takes memory of its own.
                tensor.data = _outside_inference(parked, self._device)

    def leave(self, tensors: Iterable[torch.Tensor] | None = None) -> None:
        """Throw the copies away; None: all."""
        for tensor in self.tensors if tensors is None else tensors:
            tensor.data = self._parked[id(tensor)]

    def _count_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    def _park(self) -> None:
        self._restore_dtypes()
        tensors = self.tensors
        _assign(tensors, [_to_host(tensor.data, pin=self._device.type == "cuda") for tensor in tensors])
        self._parked = {id(tensor): tensor.data for tensor in tensors}

    def _unpark(self) -> None:
        self._parked = {}
        self._restore_dtypes()

    def _widen(self) -> None:
        """A CPU without bfloat16 arithmetic is several times faster in float32, and no less exact."""
        if cpu_has_bfloat16():
            return
        for tensor in self.tensors:
            if tensor.dtype in (torch.bfloat16, torch.float16):
                self._narrow[id(tensor)] = tensor.dtype
                tensor.data = tensor.data.float()

    def _restore_dtypes(self) -> None:
        """Back from float32, without loss: every value there came from the narrower dtype."""
        for tensor in self.tensors:
            dtype = self._narrow.pop(id(tensor), None)
            if dtype is not None:
                tensor.data = tensor.data.to(dtype)


def cpu_has_bfloat16() -> bool:
    """Whether this machine's processor multiplies bfloat16 itself."""
    cpu: Any = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def _assign(tensors: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.data = value


def _to_host(value: torch.Tensor, *, pin: bool) -> torch.Tensor:
    """Pinned, a copy to the device is several times faster."""
    return value.cpu().pin_memory() if pin else value.cpu()


def _outside_inference(parked: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy that may become a parameter's data, which a tensor made in inference mode may not."""
    with torch.inference_mode(mode=False):
        return parked.to(device, non_blocking=True, copy=True)


class OnDemandSlot:
    """Who is on the device for its own stage: one group of visitors after another."""

    def __init__(self) -> None:
        self._cache: Sequence[OffloadedModule] = ()

    def take(self, group: Sequence[OffloadedModule]) -> None:
        """The group comes, the one before leaves; nothing happens where it is here already."""
        if group is not self._cache:
            self.end()
            self._cache = group
            for housed in group:
                housed.fetch()

    def end(self) -> None:
        """All leave."""
        here, self._cache = self._cache, ()
        for housed in here:
            housed.leave()


class StreamedModule:
    """One module whose weights are on the device group by group, the next one while the last one computes."""

    def __init__(self, housed: OffloadedModule, groups: Sequence[Sequence[torch.Tensor]]) -> None:
        self._housed = housed
        self._groups = groups
        self._follows: dict[int, int] = {}
        self._last: int | None = None
        self._ahead: int | None = None
        on_cuda = housed.computes_on.type == "cuda"
        self._copying: Any = torch.cuda.Stream() if on_cuda else None  # type: ignore[no-untyped-call]

    def begin(self) -> None:
        """The module's forward begins."""
        self._last = None

    def need(self, index: int) -> None:
        """A group is to compute now."""
        if self._ahead not in (None, index):
            self._leave(self._ahead)
        self._ahead = None
        self._housed.fetch(self._groups[index])
        if self._copying is not None:
            torch.cuda.current_stream().wait_stream(self._copying)
        if self._last is not None:
            self._follows[self._last] = index
        self._last = index
        self._look_ahead(self._follows.get(index))

    def done(self, index: int) -> None:
        """A group has computed."""
        self._leave(index)

    def end(self) -> None:
        """All leave."""
        self._ahead = None
        self._housed.leave()

    def _look_ahead(self, index: int | None) -> None:
        if index is None or index == self._last:
            return
        if self._copying is None:
            self._housed.fetch(self._groups[index])
        else:
            # Without this wait the program runs ahead of the device, and every group's copy would be made at once.
            torch.cuda.current_stream().synchronize()
            with torch.cuda.stream(self._copying):
                self._housed.fetch(self._groups[index])
            for tensor in self._groups[index]:
                tensor.data.record_stream(torch.cuda.current_stream())
        self._ahead = index

    def _leave(self, index: int | None) -> None:
        if index is not None:
            self._housed.leave(self._groups[index])
