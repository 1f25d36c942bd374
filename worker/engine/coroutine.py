"""A job as a coroutine: it runs a stock pipeline until that calls a view, and sleeps until the call has been made.

Greenlets switch the whole Python stack, so nothing of a pipeline is rewritten. Each coroutine finds torch's random
generators, which the whole process shares, as it left them. Knows no queue, and nothing of which call is next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import greenlet
import torch

from worker.engine.calls import Call, TableDigests


class Stopped(BaseException):
    """Exception that is thrown into an abandoned coroutine; no pipeline's `except Exception` swallows it."""


@dataclass(frozen=True)
class Turn:
    """A wait for the device, for work that no other job can share: loading, encoding.

    Attributes:
        stage: its name.
    """

    stage: str


#: What a coroutine sleeps for.
Wait = Call | Turn


#: Number of a call's rows -> further arguments by name.
MoreArguments = Callable[[int], Mapping[str, Any]]


class Compute(Protocol):
    """The call behind an intercept."""

    def __call__(self, rows: slice | None = None, more: MoreArguments | None = None) -> Any:
        """Return its result for these rows; None: for all of them.

        Args:
            more: arguments that the caller's pipeline does not give.
        """


#: Decides at a call what to compute: (module, entry, compute) -> result. See `worker/sampling/step_cache.py`.
Intercept = Callable[[torch.nn.Module, str, Compute], Any]


class Coroutine(greenlet.greenlet):  # type: ignore[misc]
    """The work of one job.

    Attributes:
        wait: what it sleeps for; None before it starts and once it has ended.
        result: what the work returned.
        error: what ended it instead.
        used_seconds: of the thread's time until it slept last, its share of joined calls included.
    """

    def __init__(self, work: Callable[[Coroutine], Any], device: torch.device, seed: int = 0) -> None:
        """Make it in the thread, and the greenlet, that will run it.

        Args:
            work: is given the coroutine.
            seed: of the generators that torch shares within the process: where a library draws from them, it
                draws the same numbers whatever other jobs do.
        """
        super().__init__(self._run_work)
        self.wait: Wait | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.used_seconds = 0.0
        self._woken_at = 0.0
        self.intercept: Intercept | None = None
        self._work: Callable[[Coroutine], Any] | None = work
        self._digests: TableDigests = {}
        self._generators = _Generators(device, seed)

    def call(self, module: torch.nn.Module, entry: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Have the engine make a call of a module; called by its view, inside the coroutine."""

        def compute(rows: slice | None = None, more: MoreArguments | None = None) -> Any:
            given = kwargs if more is None else {**kwargs, **more(len(args[0]))}
            made = Call.of(module, entry, args, given, self._digests)
            return self._sleep(made if rows is None else made.row_range(rows.start, rows.stop))

        return compute() if self.intercept is None else self.intercept(module, entry, compute)

    def take_turn(self, stage: str) -> None:
        """Sleep until it is this job's turn; called inside the coroutine."""
        self._sleep(Turn(stage))

    @property
    def seconds(self) -> float:
        """`used_seconds` until now; inside the coroutine."""
        return self.used_seconds + time.perf_counter() - self._woken_at

    def wake(self, value: Any = None, error: BaseException | None = None) -> None:
        """Run it until it sleeps again or ends; called by the engine.

        Args:
            value: the result of what it waits for.
            error: thrown into it instead.
        """
        self._woken_at = time.perf_counter()
        self.wait = None
        self._generators.swap()
        torch.set_grad_enabled(False)
        try:
            wait = self.switch(value) if error is None else self.throw(error)
        finally:
            # A pipeline's `no_grad` restored what it had found, perhaps before others began.
            torch.set_grad_enabled(False)
            self._generators.swap()
            self.used_seconds += time.perf_counter() - self._woken_at
        self.wait = None if self.dead else wait

    def close(self) -> None:
        """Abandon it. A suspended greenlet that is merely dropped would never be freed, nor would its tensors."""
        while not self.dead:
            self.wake(error=Stopped())

    def _sleep(self, wait: Wait) -> Any:
        return self.parent.switch(wait)

    def _run_work(self, _: Any = None) -> None:
        work, self._work = self._work, None
        try:
            if work is not None:
                self.result = work(self)
        except BaseException as error:  # noqa: BLE001 - the engine reads it; `Stopped` too
            # With its traceback, its frames would keep the latents alive.
            self.error = error.with_traceback(None)
        finally:
            self.intercept = None
            self._digests.clear()


class _Generators:
    """The state of torch's own generators, for one coroutine."""

    def __init__(self, device: torch.device, seed: int) -> None:
        self._device = device if device.type == "cuda" else None
        self._cpu = torch.Generator().manual_seed(seed).get_state()
        self._cuda = None if self._device is None else torch.Generator(device).manual_seed(seed).get_state()

    def swap(self) -> None:
        """Exchange the thread's states with those that are kept here."""
        state = torch.get_rng_state()
        torch.set_rng_state(self._cpu)
        self._cpu = state
        if self._device is not None and self._cuda is not None:
            state = torch.cuda.get_rng_state(self._device)
            torch.cuda.set_rng_state(self._cuda, self._device)
            self._cuda = state


def current_coroutine() -> Coroutine | None:
    """The coroutine that runs in this thread; None in the engine itself and in other threads."""
    current = greenlet.getcurrent()
    return current if isinstance(current, Coroutine) else None
