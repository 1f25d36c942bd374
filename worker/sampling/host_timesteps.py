"""Schedulers whose steps never wait for the device: what they look up or compute from a timestep is on the host.

diffusers 0.42 gives pipelines their timesteps on the device. Schedulers then index tables on the CPU with them,
compare them and copy values to and fro; each time the host waits until the device has done all that was queued.
Here the denoiser still gets the timestep on the device, and the scheduler the same one on the host. Noise is drawn
as before, and copied from page-locked memory. Changes no bit of a result on the CPU.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache, wraps
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor

from worker.runtime.async_copies import copy_to, rebound
from worker.sampling.unipc import HostUniPC


class Timesteps:
    """The timesteps of a schedule, on the device and the host; for all else the tensor on the device.

    diffusers' pipelines go through them for the denoiser, which needs the device, and index them with a number
    (`timesteps[i + 1]`) for the scheduler, which gets the value on the host.
    """

    def __init__(self, on_device: torch.Tensor, on_host: torch.Tensor) -> None:
        """Join equal timesteps, (steps,) both."""
        self.on_device, self.on_host = on_device, on_host

    def __getattr__(self, name: str) -> Any:
        """What a tensor has."""
        return getattr(self.on_device, name)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """A function of torch takes the tensor on the device."""
        del types
        given = tuple(one.on_device if isinstance(one, cls) else one for one in args)
        return func(*given, **(kwargs or {}))

    def __len__(self) -> int:
        """The number of steps."""
        return len(self.on_host)

    def __iter__(self) -> Iterator[Any]:
        """Single timesteps on the device, which know their value `on_host`."""
        for on_device, on_host in zip(self.on_device.unbind(), self.on_host.unbind(), strict=True):
            on_device.on_host = on_host  # type: ignore[attr-defined]
            yield on_device

    def __lt__(self, other: float) -> torch.Tensor:
        """Which of them are smaller, on the host: pipelines count those that are left from some time on."""
        return self.on_host < other

    def __getitem__(self, index: int | slice) -> Any:
        """A part with both; or a single timestep on the host."""
        if isinstance(index, slice):
            return Timesteps(self.on_device[index], self.on_host[index])
        return self.on_host[index]


def on_host(timestep: Any) -> Any:
    """The timestep's value on the host where it knows one, else the timestep."""
    return getattr(timestep, "on_host", timestep)


class HostTimesteps:
    """Mixin for a scheduler of diffusers: keeps its timesteps on the device and on the host."""

    begin_index: int | None
    index_for_timestep: Any
    _begin_index: int | None
    _step_index: int | None
    _twin: Any = None

    def _get_timesteps(self) -> Timesteps | None:
        on_device, host = vars(self)["schedule"]
        return None if on_device is None else Timesteps(on_device, host)

    def _set_timesteps(self, timesteps: torch.Tensor | None) -> None:
        vars(self)["schedule"] = (timesteps, None if timesteps is None else timesteps.cpu())
        self._twin = None

    timesteps = property(_get_timesteps, _set_timesteps)

    def _init_step_index(self, timestep: Any) -> None:
        """Find the first step, as diffusers does, but on the host."""
        if self.begin_index is None:
            self._step_index = self.index_for_timestep(on_host(timestep), vars(self)["schedule"][1])
        else:
            self._step_index = self._begin_index

    def host_twin(self) -> Any:
        """This scheduler as it is now, with all its tables on the host; for reading only."""
        if self._twin is None:
            self._twin = copy.copy(self)
            tables = {
                name: value.cpu()
                for name, value in vars(self).items()
                if isinstance(value, torch.Tensor) and value.dim() == 1
            }
            vars(self._twin).update(tables, schedule=(vars(self)["schedule"][1],) * 2)
        state = {name: value for name, value in vars(self).items() if name in ("_step_index", "_begin_index")}
        vars(self._twin).update(state)
        return self._twin


@cache
def without_waits(scheduler_class: Any) -> Any:
    """The class of the same scheduler whose steps do not wait for the device."""
    methods: dict[str, Any] = {
        name: _given_on_host(_drawing_asynchronously(getattr(scheduler_class, name)))
        for name in ("step", "scale_model_input")
        if hasattr(scheduler_class, name)
    }
    if not hasattr(scheduler_class, "set_begin_index"):
        methods |= {"begin_index": None, "set_begin_index": _set_begin_index}
    if hasattr(scheduler_class, "previous_timestep"):
        methods["previous_timestep"] = _found_on_host(scheduler_class.previous_timestep)
    noising = next((name for name in ("add_noise", "scale_noise") if hasattr(scheduler_class, name)), None)
    if noising is not None:
        methods[noising] = _noised_on_host(getattr(scheduler_class, noising))
    mixins = (
        (HostTimesteps, HostUniPC) if hasattr(scheduler_class, "multistep_uni_p_bh_update") else (HostTimesteps,)
    )
    return type(scheduler_class.__name__, (*mixins, scheduler_class), methods)


def copy_noise(
    shape: Any, generator: Any = None, device: Any = None, dtype: Any = None, layout: Any = None
) -> Any:
    """Draw noise as diffusers' `randn_tensor`, with the same bits; no copy to a CUDA device waits."""
    if generator is None or device is None or torch.device(device).type != "cuda":
        return randn_tensor(shape, generator, device, dtype, layout)
    return copy_to(randn_tensor(shape, generator, torch.device("cpu"), dtype, layout), device)


def _given_on_host(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method (tensor, timestep, …), given the timestep on the host; pipelines look at its signature."""

    @wraps(method)
    def call(self: Any, tensor: Any, timestep: Any, *more: Any, **named: Any) -> Any:
        return method(self, tensor, on_host(timestep), *more, **named)

    return call


def _set_begin_index(self: Any, begin_index: int = 0) -> None:
    """Note how many steps a pipeline leaves out; the scheduler itself needs no index."""
    self.begin_index = begin_index


def _found_on_host(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method (timestep), which looks for it in the schedule on the host."""

    @wraps(method)
    def call(self: Any, timestep: Any) -> Any:
        return method(self.host_twin(), on_host(timestep))

    return call


def _drawing_asynchronously(method: Any) -> Any:
    """The method, for which `randn_tensor` means `copy_noise`; as it is where it draws nothing."""
    if "randn_tensor" not in method.__code__.co_names:
        return method
    return rebound(method, randn_tensor=copy_noise)


def _noised_on_host(method: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`add_noise` or `scale_noise` whose two weights are found on the host, where that knows the timestep.

    Every scheduler's result is the weighted sum of samples and noise. Pipelines call it after each step of an
    inpaint, for one timestep of all images.
    """
    is_flow = method.__name__ == "scale_noise"

    @wraps(method)
    def call(self: Any, samples: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        timesteps, noise = others if is_flow else others[::-1]
        if timesteps.device.type != "cpu" or timesteps.numel() != 1:
            return method(self, samples, *others)
        one, zero = torch.ones(1, dtype=samples.dtype), torch.zeros(1, dtype=samples.dtype)
        twin = self.host_twin()
        of_samples, of_noise = (
            method(twin, *((sample, timesteps, unit) if is_flow else (sample, unit, timesteps))).item()
            for sample, unit in ((one, zero), (zero, one))
        )
        weighed = (samples if of_samples == 1 else samples * of_samples), noise * of_noise
        # The sum is laid out in memory as its first term is, and a VAE's last bits depend on that.
        first, second = reversed(weighed) if is_flow else weighed
        return first + second

    return call
