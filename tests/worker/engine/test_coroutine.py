"""A job's coroutine: it sleeps and wakes, finds torch's state as it left it, and leaves nothing behind."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from worker.engine.calls import Call, make
from worker.engine.coroutine import Coroutine, Stopped, Turn, current_coroutine

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def grad_mode_restored() -> Iterator[None]:
    """A coroutine leaves gradients switched off, as all of the engine needs them."""
    before = torch.is_grad_enabled()
    yield
    torch.set_grad_enabled(before)


class Doubling(torch.nn.Module):
    """Returns twice what it is given."""

    def forward(self, values: torch.Tensor) -> tuple[torch.Tensor]:
        """In a tuple, as denoisers do."""
        return (values * 2,)


def _coroutine(work: Callable[[Coroutine], Any], seed: int = 0) -> Coroutine:
    return Coroutine(work, CPU, seed)


def test_it_runs_until_it_needs_the_device_and_goes_on_with_what_it_waited_for() -> None:
    def work(own: Coroutine) -> str:
        own.take_turn("load")
        (doubled,) = own.call(module, "__call__", (torch.ones(2, 1),), {})
        return f"sum {float(doubled.sum())}"

    module, coroutine = Doubling(), _coroutine(work)
    coroutine.wake()
    assert coroutine.wait == Turn("load")
    coroutine.wake()
    assert isinstance(coroutine.wait, Call)
    assert (coroutine.wait.module, coroutine.wait.rows) == (module, 2)
    coroutine.wake(make([coroutine.wait])[0])
    assert coroutine.dead
    assert [coroutine.wait, coroutine.result, coroutine.error] == [None, "sum 4.0", None]


def test_an_error_is_thrown_in_where_it_sleeps_and_may_be_handled_there() -> None:
    def work(own: Coroutine) -> str:
        try:
            own.take_turn("load")
        except RuntimeError as error:
            own.take_turn(f"after {error}")
        return "recovered"

    coroutine = _coroutine(work)
    coroutine.wake()
    coroutine.wake(error=RuntimeError("no memory"))
    assert coroutine.wait == Turn("after no memory")
    coroutine.wake()
    assert coroutine.result == "recovered"


def test_an_intercept_decides_at_each_call_whether_to_compute() -> None:
    module, seen = torch.nn.Linear(1, 1), []

    def predict(called: torch.nn.Module, entry: str, compute: Callable[[], Any]) -> Any:
        seen.append((called, entry))
        return compute() if len(seen) == 1 else "predicted"

    def work(own: Coroutine) -> list[Any]:
        own.intercept = predict
        return [own.call(module, "__call__", (torch.ones(1, 1),), {}) for _ in range(3)]

    coroutine = _coroutine(work)
    coroutine.wake()
    coroutine.wake("computed")
    assert coroutine.result == ["computed", "predicted", "predicted"]
    assert seen == [(module, "__call__")] * 3
    assert coroutine.intercept is None


def test_the_code_of_a_job_knows_its_coroutine_and_nobody_else_is_in_one() -> None:
    elsewhere: list[Coroutine | None] = []

    def work(own: Coroutine) -> bool:
        thread = threading.Thread(target=lambda: elsewhere.append(current_coroutine()))
        thread.start()
        thread.join()
        return current_coroutine() is own

    assert current_coroutine() is None
    coroutine = _coroutine(work)
    coroutine.wake()
    assert coroutine.result is True
    assert elsewhere == [None]
    assert current_coroutine() is None


# -- what torch holds for the thread ----------------------------------------------------------------------


def _draws(own: Coroutine) -> list[float]:
    found = []
    for _ in range(3):
        found.append(float(torch.rand(1)))
        own.take_turn("next")
    return found


def _run(*coroutines: Coroutine) -> list[Any]:
    """Wake them in turn until all have ended."""
    while not all(coroutine.dead for coroutine in coroutines):
        for coroutine in coroutines:
            if not coroutine.dead:
                coroutine.wake()
    return [coroutine.result for coroutine in coroutines]


def test_each_draws_from_global_generators_of_its_own_and_the_threads_stay_as_they_were() -> None:
    ((first,), (second,)) = (_run(_coroutine(_draws, seed)) for seed in (1, 2))
    assert first == [float(one) for one in torch.rand(3, generator=torch.Generator().manual_seed(1))]
    assert first != second
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert _run(*(_coroutine(_draws, seed) for seed in (2, 1, 1))) == [second, first, first]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seed_that_one_sets_for_the_process_is_its_own() -> None:
    def seeds(own: Coroutine) -> float:
        torch.manual_seed(9)
        own.take_turn("next")
        return float(torch.rand(1))

    alone, nine = _run(_coroutine(_draws, 1))[0], float(torch.rand(1, generator=torch.Generator().manual_seed(9)))
    assert _run(_coroutine(_draws, 1), _coroutine(seeds, 1)) == [alone, nine]


def test_no_gradients_are_recorded_whatever_order_pipelines_leave_no_grad_in() -> None:
    recorded: list[bool] = []

    def work(own: Coroutine) -> None:
        own.take_turn("first")
        with torch.no_grad():
            recorded.append(torch.is_grad_enabled())
            own.take_turn("second")
            recorded.append(torch.is_grad_enabled())
        own.take_turn("third")
        recorded.append(torch.is_grad_enabled())

    torch.set_grad_enabled(True)
    one, other = _coroutine(work), _coroutine(work)
    for coroutine in (one, one, other, one, other, other, one, other):
        coroutine.wake()
        assert not torch.is_grad_enabled()
    assert one.dead
    assert other.dead
    assert recorded == [False] * 6


# -- nothing is left --------------------------------------------------------------------------------------


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Nothing is found by a collection of garbage inside."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _holding(references: list[weakref.ref[torch.Tensor]], then: Callable[[Coroutine], Any]) -> Coroutine:
    """A coroutine that holds a tensor in a frame."""

    def work(own: Coroutine) -> Any:
        latents = torch.zeros(4)
        references.append(weakref.ref(latents))
        result = then(own)
        return float(latents.sum()) + result

    return _coroutine(work)


@pytest.mark.usefixtures("no_collection")
def test_one_that_is_given_up_frees_its_tensors_at_once() -> None:
    references: list[weakref.ref[torch.Tensor]] = []
    coroutine = _holding(references, lambda own: own.take_turn("step"))
    coroutine.wake()
    assert references[0]() is not None
    coroutine.close()
    assert coroutine.dead
    assert isinstance(coroutine.error, Stopped)
    assert references[0]() is None


@pytest.mark.usefixtures("no_collection")
def test_one_that_fails_keeps_its_error_without_the_frames_that_it_came_from() -> None:
    def fail(own: Coroutine) -> None:
        own.take_turn("step")
        raise ValueError("no such scheduler")

    references: list[weakref.ref[torch.Tensor]] = []
    coroutine = _holding(references, fail)
    coroutine.wake()
    coroutine.wake()
    assert coroutine.dead
    assert str(coroutine.error) == "no such scheduler"
    assert coroutine.error is not None
    assert coroutine.error.__traceback__ is None
    assert references[0]() is None


@pytest.mark.usefixtures("no_collection")
def test_what_it_was_last_given_is_not_kept_by_it() -> None:
    def work(own: Coroutine) -> None:
        own.call(torch.nn.Linear(1, 1), "__call__", (torch.ones(1, 1),), {})
        own.take_turn("next")

    coroutine, result = _coroutine(work), torch.zeros(4)
    reference = weakref.ref(result)
    coroutine.wake()
    coroutine.wake(result)
    del result
    assert reference() is None
    coroutine.close()


def test_no_pipeline_can_swallow_that_it_was_given_up() -> None:
    def work(own: Coroutine) -> None:
        for stage in range(9):
            try:
                own.take_turn(str(stage))
            except Exception:  # noqa: BLE001 - as libraries do
                continue

    coroutine = _coroutine(work)
    coroutine.wake()
    coroutine.wake(error=RuntimeError("swallowed"))
    assert coroutine.wait == Turn("1")
    coroutine.close()
    assert isinstance(coroutine.error, Stopped)


def test_one_that_sleeps_again_while_it_is_given_up_is_closed_nevertheless() -> None:
    cleaned = []

    def work(own: Coroutine) -> None:
        try:
            own.take_turn("step")
        finally:
            try:
                own.take_turn("clean up")
            finally:
                cleaned.append(True)

    coroutine = _coroutine(work)
    coroutine.wake()
    coroutine.close()
    assert coroutine.dead
    assert cleaned == [True]
