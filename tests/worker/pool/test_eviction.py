"""Who leaves for whom: the least recently used first, to host memory where it has room, and without a trace."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.memory.plan import Placement
from contracts.metrics import Counters
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support.jobs import complete_job, make_job
from tests.support.trained import TRAINED_FAMILIES
from tests.support.weights import count_parameters
from worker.checkpoints import loader as checkpoints
from worker.offload.offloaded_module import OffloadedModule
from worker.pool.pool import Pool

FAMILY_IDS = list(TRAINED_FAMILIES)
#: The models that are loaded the fastest.
FIRST, SECOND, THIRD = (f"tiny-{family}" for family in ("sana", "pixart", "chroma"))


@pytest.fixture(scope="module")
def whole(catalogue: Catalogue) -> Pool:
    """A pool where everything has room: it tells what models and plans take."""
    return Pool(catalogue, device="cpu", max_models=9)


def _job(catalogue: Catalogue, family: str, mode: Mode = Mode.TXT2IMG, **fields: Any) -> JobParameters:
    return make_job(catalogue, family, mode, num_inference_steps=1, **fields)


def test_the_least_recently_used_model_leaves(catalogue: Catalogue) -> None:
    pool = Pool(catalogue, device="cpu", max_models=2)
    for id in (FIRST, SECOND, FIRST, THIRD):
        pool.model(id)
    assert pool.warm == [FIRST, THIRD]


def _bytes_of(pool: Pool, *families: str) -> int:
    """What these models take on a device, and one image of the first beside them."""
    plans = [pool.model(f"shapes-{family}").placement.plan for family in families]
    first = plans[0].peak_bytes if plans[0] else 0
    return first + sum(pool.model(f"shapes-{family}").resident_bytes for family in families[1:])


def test_models_share_the_budget_and_the_least_recently_used_one_goes_to_host_memory(
    catalogue: Catalogue, whole: Pool, storage: Storage
) -> None:
    two, counters = int(_bytes_of(whole, "sdxl", "sd3", "flux") * 0.9), Counters()
    pool = Pool(catalogue, device="cpu", max_models=9, budget_bytes=two, host_bytes=2**30, counters=counters)
    first = complete_job(make_job(catalogue, "sdxl"), pool, storage)[0]
    for family in ("sd3", "flux"):
        complete_job(make_job(catalogue, family), pool, storage)
        assert pool.resident_bytes <= two
    assert pool.warm == ["shapes-sdxl", "shapes-sd3", "shapes-flux"]
    report = pool.report()
    assert report["in_host_memory"] == ["shapes-sdxl"]
    model = report["models"]["shapes-sdxl"]
    assert (model["resident_bytes"], model["plan"]) == (0, "")
    weight_bytes = pool.model("shapes-sdxl").placement.bytes
    assert 2**21 < weight_bytes <= model["host_bytes"] < 1.01 * weight_bytes
    files, receipt = complete_job(make_job(catalogue, "sdxl"), pool, storage)
    assert files == first
    assert receipt.memory is not None
    assert receipt.memory.peak_bytes is not None
    assert receipt.memory.peak_bytes <= two
    counted = {
        key: value for key, value in counters.drain().items() if key.startswith(('["evictions"', '["model_load'))
    }
    assert counted['["model_loads","","shapes-sdxl"]'] == 1
    assert counted['["evictions","","shapes-sdxl","host"]'] == 1


def test_where_host_memory_has_no_room_a_model_is_dropped(catalogue: Catalogue) -> None:
    counters = Counters()
    pool = Pool(catalogue, device="cpu", max_models=2, host_bytes=2**10, counters=counters)
    for id in (FIRST, SECOND, THIRD):
        pool.model(id)
    assert pool.warm == [SECOND, THIRD]
    assert counters.drain()[f'["evictions","","{FIRST}","dropped"]'] == 1


def test_host_memory_keeps_to_its_own_bound(catalogue: Catalogue, whole: Pool) -> None:
    sizes = {f: whole.model(f"shapes-{f}").placement.bytes for f in FAMILY_IDS}
    pool = Pool(catalogue, device="cpu", max_models=1, host_bytes=max(sizes["sdxl"], sizes["sd3"]) + 2**18)
    for family in ("sdxl", "sd3", "flux"):
        pool.model(f"shapes-{family}")
    assert pool.warm == ["shapes-sdxl", "shapes-flux"]
    # A buffer begins each tensor at a multiple of 64 bytes.
    assert sizes["sdxl"] <= pool.report()["host_bytes"] < 1.01 * sizes["sdxl"]


def test_a_model_that_host_memory_does_not_take_is_dropped(
    catalogue: Catalogue, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, job = Pool(catalogue, device="cpu", max_models=1, host_bytes=2**30), _job(catalogue, "sana")
    first = complete_job(job, pool, storage)[0]

    def fail(self: OffloadedModule) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(OffloadedModule, "_to_host", fail)
        pool.model(SECOND)
    assert pool.warm == [SECOND]
    assert complete_job(job, pool, storage)[0] == first


def test_a_model_that_leaves_gives_its_memory_back(catalogue: Catalogue) -> None:
    before = count_parameters()
    pool = Pool(catalogue, device="cpu", max_models=1)
    pool.model(FIRST)
    with_one = count_parameters()
    pool.drop(FIRST)
    assert with_one > before
    assert count_parameters() == before


def test_a_model_that_is_dropped_is_gone_before_the_next_one_is_loaded(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(catalogue, device="cpu", max_models=1)
    pool.model(FIRST).denoiser.itself = [pool.model(FIRST)]  # only a collection finds such a ring
    denoiser: weakref.ref[torch.nn.Module] = weakref.ref(pool.model(FIRST).denoiser)
    load, alive = checkpoints.load_model, []

    def look_and_load(*arguments: Any) -> Any:
        alive.append(denoiser() is not None)
        return load(*arguments)

    monkeypatch.setattr(checkpoints, "load_model", look_and_load)
    pool.model(SECOND)
    assert alive == [False]


def test_a_switch_to_a_model_in_host_memory_walks_through_no_other_objects_of_the_process(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(catalogue, device="cpu", max_models=1, host_bytes=2**30)
    for id in (FIRST, SECOND):
        pool.model(id)
    collected: list[object] = []
    monkeypatch.setattr(gc, "collect", lambda *_: collected.append(None))
    pool.model(FIRST)
    assert pool.report()["in_host_memory"] == [SECOND]
    assert collected == []


def test_another_thread_may_ask_for_a_report_while_models_come_and_go(catalogue: Catalogue) -> None:
    pool = Pool(catalogue, device="cpu", max_models=1)
    stop, errors = threading.Event(), []

    def ask() -> None:
        while not stop.wait(0.001):  # without a pause it keeps the interpreter's lock, and loading takes 40 s
            try:
                pool.report()
            except Exception as error:  # noqa: BLE001 - whatever it is, the test tells it
                errors.append(error)

    asker = threading.Thread(target=ask)
    asker.start()
    for id in (FIRST, SECOND, FIRST):
        pool.model(id).pipeline(Mode.TXT2IMG, pool.model(id).spec.schedulers[0])
    stop.set()
    asker.join()
    assert errors == []


def test_switching_models_copies_each_to_host_memory_only_once(catalogue: Catalogue) -> None:
    pool = Pool(catalogue, device="cpu", max_models=1, host_bytes=2**30)
    first = pool.model(FIRST)
    second = pool.model(SECOND)
    for id in (FIRST, SECOND) * 2:
        pool.model(id)
    assert [model.placement.moved_bytes["host"] for model in (first, second)] == [
        model.placement.bytes for model in (first, second)
    ]
    assert first.placement.moved_bytes["device"] == 3 * first.placement.bytes
    # Both have a copy there, the one on the device too, and both count.
    assert pool.report()["host_bytes"] >= first.placement.bytes + second.placement.bytes


def test_a_controlnet_that_a_job_does_not_name_stays_on_the_device_while_it_fits(
    catalogue: Catalogue,
) -> None:
    controlled, plain = _job(catalogue, "sd15", Mode.CONTROLNET), _job(catalogue, "sd15")
    pool = Pool(catalogue, device="cpu")
    for job in (controlled, plain, controlled, plain):
        model = pool.ready(job, 1)
    assert model.placement.placement_of("controlnet:sd15-hint") is Placement.DEVICE
    assert model.placement.moved_bytes == {"device": model.placement.bytes, "host": 0}
    budget = int(pool.plan_selector.choose(controlled, 1).peak_bytes / 0.95) + 1
    tight = Pool(catalogue, device="cpu", budget_bytes=budget, max_models=9)
    tight.ready(controlled, 1)
    other = tight.ready(_job(catalogue, "sana"), 1)
    assert tight.resident_bytes <= 0.95 * budget
    assert other.placement.plan is not None


def _peak(pool: Pool, model: str) -> int:
    """Of the fastest plan for one image of the model's default size."""
    return pool.plan_selector.default_plan(model).peak_bytes


def test_models_that_alternate_stay_where_slightly_slower_plans_leave_room_for_both(
    catalogue: Catalogue, whole: Pool, storage: Storage
) -> None:
    models = [whole.model(id) for id in ("shapes-sdxl", "shapes-flux")]
    # A little too small for the first model's weights beside the fastest plan of the second.
    budget = int((models[0].resident_bytes + _peak(whole, "shapes-flux") - 2**18) / 0.95)
    counters = Counters()
    pool = Pool(catalogue, device="cpu", max_models=9, budget_bytes=budget, counters=counters)
    jobs = [_job(catalogue, family) for family in ("sdxl", "flux")]
    first = [complete_job(job, pool, storage)[0] for job in jobs]
    moved = [pool._cache.models[job.model].placement.moved_bytes["device"] for job in jobs]
    for _ in range(2):
        assert [complete_job(job, pool, storage)[0] for job in jobs] == first
    assert [pool._cache.models[job.model].placement.moved_bytes["device"] for job in jobs] == moved
    counted = counters.drain()
    assert not [key for key in counted if key.startswith('["evictions"')]
    assert {key: value for key, value in counted.items() if key.startswith('["model_loads"')} == {
        f'["model_loads","","{model.spec.id}"]': 1 for model in models
    }
    plain = [complete_job(job, whole, storage)[0] for job in jobs]
    assert first == plain


def test_a_plan_that_ran_out_of_memory_is_the_one_that_was_taken(catalogue: Catalogue, whole: Pool) -> None:
    sdxl = whole.model("shapes-sdxl")
    budget = int((sdxl.resident_bytes + _peak(whole, "shapes-flux") - 2**18) / 0.95)
    pool = Pool(catalogue, device="cpu", max_models=9, budget_bytes=budget)
    job = make_job(catalogue, "flux")
    pool.ready(make_job(catalogue, "sdxl"), 1)
    taken = pool.ready(job, 1).placement.plan
    assert taken is not None
    best = pool.plan_selector.choose(job, 1)
    assert taken.peak_bytes < best.peak_bytes
    assert pool.step_down(job, 1) == taken.name
    again = pool.ready(job, 1).placement.plan
    assert again is not None
    assert again.peak_bytes < taken.peak_bytes


def test_sizes_that_alternate_leave_weights_where_both_plans_work_and_a_row_of_one_size_moves_them(
    trained: Catalogue, trained_pool: Pool
) -> None:
    """The large one needs its denoiser on demand; the small one costs the same with that as with another move."""
    small, large = (make_job(trained, "sdxl", width=side, height=side) for side in (64, 256))
    trained_pool.ready(small, 1)
    pool = Pool(
        trained, device="cpu", budget_bytes=int(0.75 * trained_pool.plan_selector.choose(large, 1).peak_bytes)
    )
    assert pool.plan_selector.choose(small, 1).name == "all resident"
    assert pool.plan_selector.choose(large, 1).name == "denoiser on demand"
    placement = pool.ready(small, 1).placement
    assert placement.plan is not None
    assert placement.plan.name == "all resident"
    moved = placement.moved_bytes["device"]
    for job in (large, small) * 3:
        pool.ready(job, 1)
        assert placement.plan.name == "denoiser on demand"
    assert placement.moved_bytes["device"] == moved
    pool.ready(small, 1)
    assert placement.plan.name == "all resident"
    assert placement.moved_bytes["device"] > moved


# -- models that jobs in flight compute with --------------------------------------------------------------


def test_a_model_that_is_held_leaves_after_those_that_are_not(catalogue: Catalogue) -> None:
    pool = Pool(catalogue, device="cpu", max_models=2)
    pool.model(FIRST)
    pool.hold(FIRST)
    pool.model(SECOND)
    pool.model(THIRD)
    assert pool.warm == [FIRST, THIRD]
    pool.release(FIRST)
    pool.model(SECOND)
    assert pool.warm == [THIRD, SECOND]


def test_a_job_waits_for_others_only_where_their_model_would_have_to_be_dropped(catalogue: Catalogue) -> None:
    first, second = _job(catalogue, "sana"), _job(catalogue, "pixart")
    for host_bytes, must_wait in ((0, True), (2**30, False)):
        pool = Pool(catalogue, device="cpu", max_models=1, host_bytes=host_bytes)
        pool.model(second.model)  # its components are known from now on
        pool.ready(first, 1)
        assert not pool.must_wait(second)
        pool.hold(first.model)
        pool.hold(first.model)
        assert (pool.must_wait(second), pool.must_wait(first)) == (must_wait, False)
        pool.release(first.model)
        assert pool.must_wait(second) is must_wait
        pool.release(first.model)
        assert not pool.must_wait(second)


def test_a_model_that_is_placed_again_is_the_same_one_where_its_plan_says(catalogue: Catalogue) -> None:
    pool = Pool(catalogue, device="cpu", max_models=1, host_bytes=2**30)
    job = _job(catalogue, "sana")
    model = pool.ready(job, 1)
    plan = model.placement.plan
    assert plan is not None
    pool.hold(job.model)
    pool.model(SECOND)
    assert model.on_host
    pool.place_again(job.model, plan)
    assert model.placement.plan == plan
    assert pool.ready(job, 1) is model
    assert pool.report()["in_host_memory"] == [SECOND]


def test_a_call_has_as_many_images_as_fit_beside_the_other_models(catalogue: Catalogue, whole: Pool) -> None:
    job = _job(catalogue, "sdxl")
    plan = whole.ready(job, 1).placement.plan
    assert plan is not None
    room = 3 * plan.activation_bytes + plan.activation_bytes // 2
    pool = Pool(catalogue, device="cpu", max_models=9, budget_bytes=int((plan.peak_bytes + room) / 0.95) + 1)
    own = pool.ready(job, 1).placement.plan
    assert own is not None
    alone = pool.images_with_room(job.model, own)
    assert 1 < alone <= own.batch_images
    tight = Pool(catalogue, device="cpu", max_models=9, budget_bytes=int(plan.peak_bytes / 0.95) + 1)
    assert tight.images_with_room(job.model, own) == 1
