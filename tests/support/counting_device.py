"""A stand-in for a CUDA device: tensors that say they are on `cuda:0`, and compute on the CPU.

It counts what would make the host wait for a device: values that Python reads, results whose size depends on
values, and copies that are not from or to page-locked memory. As on a device, tensors of both kinds do not mix,
except for single values on the host. Tells nothing about speed, nor about waits inside CUDA's libraries beyond
`WAITING`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from worker.pool.model import LoadedModel
from worker.pool.pool import Pool

DEVICE = torch.device("cuda:0")

#: For these, torch 2.13 waits for a CUDA device: it reads their results, or their sizes depend on values.
WAITING = frozenset({
    "_local_scalar_dense", "equal", "is_nonzero", "item", "linalg_eigh", "linalg_inv", "linalg_lstsq",
    "linalg_solve", "masked_select", "multinomial", "nonzero", "nonzero_numpy", "unique_consecutive", "_unique2",
})  # fmt: skip
#: Operations that copy an index from the host to the device.
_INDEXING = frozenset({"index", "index_put", "index_put_", "_index_put_impl_"})


class DeviceTensor(torch.Tensor):
    """A tensor that says it is on the device; `cpu_values` hold it."""

    cpu_values: torch.Tensor
    # For Python only: CPU builds of torch can compute with tensors on `meta`, not with those on CUDA.
    device = property(lambda _: DEVICE)
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> DeviceTensor:
        """Stand for these values, and share their memory."""
        make: Any = torch.Tensor._make_wrapper_subclass
        # In inference mode, torch lets no view of an ordinary tensor be a tensor of that mode.
        with torch.inference_mode(mode=False):
            wrapper: DeviceTensor = make(
                cls, values.size(), strides=values.stride(), storage_offset=values.storage_offset(),
                dtype=values.dtype, layout=values.layout, device="meta",
            )  # fmt: skip
        wrapper.cpu_values = values
        return wrapper

    def __repr__(self) -> str:  # type: ignore[override]
        """Its values, told apart from the host's."""
        return f"on {DEVICE}: {self.cpu_values!r}"

    def __getitem__(self, index: Any) -> Any:
        """Torch would make an index from a list on `meta`, without values."""
        return super().__getitem__(torch.tensor(index) if isinstance(index, list) else index)

    def tolist(self) -> Any:
        """Read the values on the host, which waits."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Compute in a thread where no `CountingDevice` is active, and count nothing."""
        return CountingDevice().compute(func, args, kwargs or {})


class CountingDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, `device="cuda"` means the counting device.

    Attributes:
        waits: operation -> how often the host would have waited for the device.
        copied_bytes: `cuda to cpu` or `cpu to cuda` -> bytes of all tensors that crossed.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits: Counter[str] = Counter()
        self.copied_bytes: Counter[str] = Counter()
        self._pinned: dict[int, torch.UntypedStorage] = {}

    def __enter__(self) -> Any:
        """Have torch start no CUDA, and make tensors from lists as other operations (see its `FakeTensorMode`)."""
        self._before = (torch.cuda._lazy_init, torch._C._only_lift_cpu_tensors())
        torch.cuda._lazy_init = lambda: None
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        """Undo it."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        torch.cuda._lazy_init, lifts = self._before
        torch._C._set_only_lift_cpu_tensors(lifts)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute one operation on the CPU, and count it where it belongs to the device."""
        del types
        return self.compute(func, args, kwargs or {})

    def compute(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Compute one operation.

        Raises:
            RuntimeError: it mixes tensors of the device and the host.
        """
        name, names, changes_itself = _schema(func)
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        tensors = [*_tensors(args), *_tensors(kwargs.values())]
        if name in ("is_pinned", "_pin_memory", "pin_memory"):
            return self._pin(name, given["self"])
        target = self._target(name, given, tensors)
        self._count(name, given, tensors, target)
        if "device" in given and given["device"] is not None:
            args = tuple("cpu" if key == "device" else value for key, value in zip(names, args, strict=False))
            kwargs = {**kwargs, "device": torch.device("cpu")} if "device" in kwargs else kwargs
        pins = bool(kwargs.pop("pin_memory", None))
        result = func(*map(_unwrap, args), **{name: _unwrap(value) for name, value in kwargs.items()})
        if "self" in given and result is _unwrap(given["self"]) and given["self"].device.type != target:
            result = result.clone()  # each side has its own memory
        if pins:
            self._pinned[result.untyped_storage()._cdata] = result.untyped_storage()
        if changes_itself:
            return given["self"]
        if target != DEVICE.type:
            return result
        return _wrap(result) if isinstance(result, torch.Tensor) else tree_map(_wrap, result)

    def _target(self, name: str, given: dict[str, Any], tensors: list[torch.Tensor]) -> str:
        """The kind of device that the result is on."""
        if given.get("device") is not None:
            kind = torch.device(given["device"]).type
            return DEVICE.type if kind == "meta" else str(kind)
        if name == "to" and "other" in given:
            return str(given["other"].device.type)
        if name == "copy_":
            return str(given["self"].device.type)
        return DEVICE.type if any(isinstance(tensor, DeviceTensor) for tensor in tensors) else "cpu"

    def _count(self, name: str, given: dict[str, Any], tensors: list[torch.Tensor], target: str) -> None:
        on_device: list[torch.Tensor] = [tensor for tensor in tensors if isinstance(tensor, DeviceTensor)]
        on_host = [tensor for tensor in tensors if not isinstance(tensor, DeviceTensor)]
        if name in ("_to_copy", "to", "copy_", "cpu"):
            source = given["src"] if name == "copy_" else given["self"]
            if source.device.type != target:
                self.copied_bytes[f"{source.device.type} to {target}"] += source.nbytes
                pinned = self._is_pinned(given["self"] if target == "cpu" and name == "copy_" else source)
                if not (given.get("non_blocking") and pinned):
                    self.waits[f"copy {source.device.type} to {target}"] += 1
        elif on_device and [tensor for tensor in on_host if tensor.dim() > 0]:
            if name not in _INDEXING:
                raise RuntimeError(f"{name}: expected all tensors on one device, got {DEVICE.type} and cpu")
            self.waits["copy of an index"] += 1
        if name in _INDEXING and any(tensor.dtype is torch.bool for tensor in on_device[1:]):
            self.waits["index by a mask"] += 1
        if on_device and name in WAITING:
            self.waits[name] += 1

    def _pin(self, name: str, tensor: torch.Tensor) -> Any:
        if name == "is_pinned":
            return self._is_pinned(tensor)
        copy = tensor.clone()
        self._pinned[copy.untyped_storage()._cdata] = copy.untyped_storage()
        return copy

    def _is_pinned(self, tensor: torch.Tensor) -> bool:
        return not isinstance(tensor, DeviceTensor) and tensor.untyped_storage()._cdata in self._pinned


class _HostGenerator(torch.Generator):
    """A generator of the device, whose state CUDA keeps on the host."""

    def __new__(cls, device: object = None) -> Self:
        """One of the CPU, whatever the device."""
        del device
        return super().__new__(cls, "cpu")  # type: ignore[call-arg]


class _ReachedEvent:
    """A point in the device's work, which it has always reached: it computes at once."""

    def __init__(self, enable_timing: bool = True) -> None:
        self._at = 0.0

    def record(self) -> None:
        """Here."""
        self._at = time.perf_counter()

    def query(self) -> bool:
        """It has been reached."""
        return True

    def elapsed_time(self, end: _ReachedEvent) -> float:
        """Milliseconds to another point."""
        return 1000 * (end._at - self._at)


@contextmanager
def _generators_and_events() -> Iterator[None]:
    """Inside, there are generators of the device, the global one of the process among them, and events."""
    library: Any = torch
    own, of_process = torch.Generator, _HostGenerator()
    functions = (torch.cuda.get_rng_state, torch.cuda.set_rng_state, torch.cuda.Event)
    library.Generator, library.cuda.Event = _HostGenerator, _ReachedEvent
    library.cuda.get_rng_state = lambda _: of_process.get_state()
    library.cuda.set_rng_state = lambda state, _: of_process.set_state(state)
    try:
        yield
    finally:
        library.Generator = own
        library.cuda.get_rng_state, library.cuda.set_rng_state, library.cuda.Event = functions


@contextmanager
def on_device(pool: Pool, model: LoadedModel) -> Iterator[CountingDevice]:
    """Inside, a model that was loaded on the CPU, and its jobs, run on the device."""
    components = list(model.placement._components.values())
    weights: list[tuple[Any, str, torch.Tensor]] = [
        (owner, name, tensor)
        for component in components
        for part in component.module.modules()
        for owner in (part._parameters, part._buffers)
        for name, tensor in owner.items() if tensor is not None
    ]  # fmt: skip
    cuda: Any = torch.cuda
    homes = (pool.device, model.device, torch.cuda.synchronize, torch.cuda.get_device_name)
    counting = CountingDevice()

    def synchronize(*_: object) -> None:
        counting.waits["synchronize"] += 1

    try:
        for owner, name, tensor in weights:
            moved: torch.Tensor = DeviceTensor(tensor.data)
            is_parameter = isinstance(tensor, torch.nn.Parameter)
            owner[name] = torch.nn.Parameter(moved, requires_grad=False) if is_parameter else moved
        pool.device = model.device = model.encoders.device = DEVICE
        for component in components:
            component._device = DEVICE
        cuda.synchronize, cuda.get_device_name = synchronize, str
        with counting, _generators_and_events():
            yield counting
    finally:
        pool.device, model.device, cuda.synchronize, cuda.get_device_name = homes
        model.encoders.device = homes[1]
        for component in components:
            component._device = homes[1]
        for owner, name, tensor in weights:
            owner[name] = tensor


@cache
def _schema(func: Any) -> tuple[str, Sequence[str], bool]:
    """An operation's name, those of its arguments, and whether it changes its first one."""
    schema = func._schema
    name = schema.name.removeprefix("aten::")
    return name, [argument.name for argument in schema.arguments], schema.is_mutable and name.endswith("_")


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Those among the values, and in lists among them."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _wrap(value: Any) -> Any:
    is_host = isinstance(value, torch.Tensor) and not isinstance(value, DeviceTensor)
    return DeviceTensor(value) if is_host else value


def _unwrap(value: Any) -> Any:
    if isinstance(value, DeviceTensor):
        return value.cpu_values
    return [_unwrap(one) for one in value] if isinstance(value, list | tuple) else value
