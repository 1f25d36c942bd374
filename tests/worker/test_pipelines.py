"""The warm pool: one set of weights for all tasks, fresh objects for every job, room made by last use."""

from __future__ import annotations

import gc
import threading
from typing import Any

import diffusers
import pytest
import torch

from contracts.catalogue import Catalogue
from contracts.families import FAMILIES, Mode
from contracts.metrics import Tally
from contracts.plans import Home
from contracts.storage import Storage
from tests.worker.orders import done, order
from worker.families import load_family
from worker.homes import Housed
from worker.pipelines import Pool
from worker.warm_models import derive

FAMILY_IDS = list(FAMILIES)


def _tensors(pipeline: Any) -> dict[str, int]:
    """Every weight of a pipeline, with where it lies in memory."""
    return {
        f"{name}.{key}": tensor.data_ptr()
        for name, part in pipeline.components.items()
        if isinstance(part, torch.nn.Module)
        for key, tensor in [*part.named_parameters(), *part.named_buffers()]
    }


def _parameter_count() -> int:
    """Parameters that are alive in this process, each counted once."""
    gc.collect()
    return sum(thing.numel() for thing in gc.get_objects() if type(thing) is torch.nn.Parameter)


@pytest.mark.parametrize("family", FAMILY_IDS)
def test_all_tasks_of_a_model_share_one_set_of_weights(family: str, pool: Pool) -> None:
    model = pool.model(f"shapes-{family}")
    base = _tensors(model.base)
    for mode in load_family(family).pipelines:
        controls = [f"{family}-hint"] if "controlnet" in mode else []
        for id in controls:
            model.load_controlnet(id)
        derived = _tensors(model.pipeline(mode, model.spec.schedulers[0], controls))
        shared = {name: place for name, place in derived.items() if not name.startswith("controlnet.")}
        # SD3's ControlNet pipelines hold their VAE in a wrapper.
        assert shared == {name: base[name] for name in shared}
        assert any(name.startswith(model.family.denoiser) for name in shared)


@pytest.mark.parametrize("family", FAMILY_IDS)
def test_a_second_task_adds_no_parameters(family: str, catalogue: Catalogue, pool: Pool, storage: Storage) -> None:
    done(order(catalogue, family), pool, storage)
    before = _parameter_count()
    for mode in (Mode.IMG2IMG, Mode.INPAINT):
        done(order(catalogue, family, mode), pool, storage)
    assert _parameter_count() == before


def test_a_controlnet_is_loaded_once(catalogue: Catalogue, pool: Pool) -> None:
    model = pool.model("shapes-sdxl")
    model.load_controlnet("sdxl-hint")
    first = model.pipeline(Mode.CONTROLNET, "euler", ["sdxl-hint"]).controlnet
    assert model.pipeline(Mode.CONTROLNET_IMG2IMG, "euler", ["sdxl-hint"]).controlnet is first
    several = model.pipeline(Mode.CONTROLNET, "euler", ["sdxl-hint", "sdxl-hint"]).controlnet
    assert list(several.nets) == [first, first]


def test_from_pipe_upcasts_the_shared_weights_and_derive_does_not(catalogue: Catalogue) -> None:
    """The trap is diffusers' own; should it go away one day, this test says so."""
    folder = catalogue.root / "shapes-sdxl"
    base = diffusers.StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.bfloat16)
    derive(diffusers.StableDiffusionXLImg2ImgPipeline, base)
    assert base.unet.dtype == torch.bfloat16
    diffusers.StableDiffusionXLImg2ImgPipeline.from_pipe(base)
    assert base.unet.dtype == torch.float32


def test_derive_keeps_the_pipelines_own_settings(catalogue: Catalogue, pool: Pool) -> None:
    base = pool.model("shapes-sdxl").base
    for value in (True, False):
        base.register_to_config(force_zeros_for_empty_prompt=value)
        derived = derive(diffusers.StableDiffusionXLControlNetPipeline, base, controlnet=None)
        assert derived.config.force_zeros_for_empty_prompt is value
    base.register_to_config(force_zeros_for_empty_prompt=True)


def test_the_least_recently_used_model_leaves(catalogue: Catalogue) -> None:
    pool = Pool(catalogue, device="cpu", max_models=2)
    pool.model("shapes-sdxl")
    pool.model("shapes-sd3")
    pool.model("shapes-sdxl")
    pool.model("shapes-flux")
    assert pool.warm == ["shapes-sdxl", "shapes-flux"]


def _bytes_of(catalogue: Catalogue, *families: str) -> int:
    """What these models take on a device, and one image of the first beside them."""
    pool = Pool(catalogue, device="cpu", max_models=9)
    plans = [pool.model(f"shapes-{family}").homes.plan for family in families]
    first = plans[0].peak_bytes if plans[0] else 0
    return first + sum(pool.model(f"shapes-{family}").resident_bytes for family in families[1:])


def test_models_share_the_budget_and_the_least_recently_used_one_goes_to_host_memory(
    catalogue: Catalogue, storage: Storage
) -> None:
    two, tally = int(_bytes_of(catalogue, "sdxl", "sd3", "flux") * 0.9), Tally()
    pool = Pool(catalogue, device="cpu", max_models=9, budget_bytes=two, host_bytes=2**30, tally=tally)
    first = done(order(catalogue, "sdxl"), pool, storage)[0]
    for family in ("sd3", "flux"):
        done(order(catalogue, family), pool, storage)
        assert pool.resident_bytes <= two
    assert pool.warm == ["shapes-sdxl", "shapes-sd3", "shapes-flux"]
    report = pool.report()
    assert report["parked"] == ["shapes-sdxl"]
    parked = report["models"]["shapes-sdxl"]
    assert (parked["resident_bytes"], parked["rung"]) == (0, "")
    assert parked["host_bytes"] == pool.model("shapes-sdxl").homes.bytes > 2**23
    files, receipt = done(order(catalogue, "sdxl"), pool, storage)
    assert files == first
    assert receipt.memory is not None
    assert receipt.memory.peak_bytes is not None
    assert receipt.memory.peak_bytes <= two
    counted = {
        key: value for key, value in tally.drain().items() if key.startswith(('["evictions"', '["model_load'))
    }
    assert counted['["model_loads","","shapes-sdxl"]'] == 1
    assert counted['["evictions","","shapes-sdxl","host"]'] == 1


def test_where_host_memory_has_no_room_a_model_is_dropped(catalogue: Catalogue, storage: Storage) -> None:
    two, tally = int(_bytes_of(catalogue, "sdxl", "sd3", "flux") * 0.9), Tally()
    pool = Pool(catalogue, device="cpu", max_models=9, budget_bytes=two, host_bytes=2**20, tally=tally)
    for family in ("sdxl", "sd3", "flux"):
        done(order(catalogue, family), pool, storage)
    assert pool.warm == ["shapes-sd3", "shapes-flux"]
    assert tally.drain()['["evictions","","shapes-sdxl","dropped"]'] == 1


def test_host_memory_keeps_to_its_own_bound(catalogue: Catalogue) -> None:
    sizes = {f: Pool(catalogue, device="cpu").model(f"shapes-{f}").homes.bytes for f in FAMILY_IDS}
    pool = Pool(catalogue, device="cpu", max_models=1, host_bytes=max(sizes.values()) + 2**20)
    for family in ("sdxl", "sd3", "flux"):
        pool.model(f"shapes-{family}")
    assert pool.warm == ["shapes-sdxl", "shapes-flux"]
    assert pool.report()["host_bytes"] == sizes["sdxl"]


def test_a_move_that_fails_half_way_leaves_no_half_moved_model(
    catalogue: Catalogue, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(catalogue, device="cpu", max_models=1, host_bytes=2**30)
    first = done(order(catalogue, "sdxl"), pool, storage)[0]
    pool.model("shapes-flux")
    assert pool.report()["parked"] == ["shapes-sdxl"]
    move, moved = Housed.move, []

    def break_off(self: Housed, home: Home) -> None:
        moved.append(home)
        if moved.count(Home.DEVICE) == 2:
            raise torch.OutOfMemoryError("the device is full")
        move(self, home)

    monkeypatch.setattr(Housed, "move", break_off)
    with pytest.raises(torch.OutOfMemoryError):
        pool.ready(order(catalogue, "sdxl"), 1)
    monkeypatch.undo()
    assert pool.warm == ["shapes-flux"]
    assert done(order(catalogue, "sdxl"), pool, storage)[0] == first


def test_a_model_that_cannot_be_parked_is_dropped(
    catalogue: Catalogue, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(catalogue, device="cpu", max_models=1, host_bytes=2**30)
    first = done(order(catalogue, "sdxl"), pool, storage)[0]

    def fail(self: Housed) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Housed, "_park", fail)
        done(order(catalogue, "flux"), pool, storage)
    assert pool.warm == ["shapes-flux"]
    assert done(order(catalogue, "sdxl"), pool, storage)[0] == first


def test_a_model_that_leaves_gives_its_memory_back(catalogue: Catalogue) -> None:
    before = _parameter_count()
    pool = Pool(catalogue, device="cpu", max_models=1)
    pool.model("shapes-sdxl")
    with_one = _parameter_count()
    pool.drop("shapes-sdxl")
    assert with_one > before
    assert _parameter_count() == before


def test_a_model_that_comes_back_makes_the_same_bytes(catalogue: Catalogue, storage: Storage) -> None:
    pool = Pool(catalogue, device="cpu", max_models=1)
    first, _ = done(order(catalogue, "sdxl"), pool, storage)
    done(order(catalogue, "flux"), pool, storage)
    assert pool.warm == ["shapes-flux"]
    assert done(order(catalogue, "sdxl"), pool, storage)[0] == first


def test_the_report_tells_what_is_warm_and_where_it_lies(catalogue: Catalogue) -> None:
    pool = Pool(catalogue, device="cpu")
    assert (pool.report()["warm"], pool.report()["placement"]) == ([], {})
    pool.ready(order(catalogue, "flux", Mode.CONTROLNET), 1)
    report = pool.report()
    assert report["warm"] == ["shapes-flux"]
    assert report["placement"]["shapes-flux"] == {
        "vae": "cpu", "text_encoder": "cpu", "text_encoder_2": "cpu", "transformer": "cpu",
        "controlnet:flux-hint": "cpu",
    }  # fmt: skip


def test_another_thread_may_ask_for_a_report_while_models_come_and_go(catalogue: Catalogue) -> None:
    pool = Pool(catalogue, device="cpu", max_models=1)
    stop, errors = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            try:
                pool.report()
            except Exception as error:  # noqa: BLE001 - whatever it is, the test tells it
                errors.append(error)

    asker = threading.Thread(target=ask)
    asker.start()
    for id in ("shapes-sdxl", "shapes-flux", "shapes-sdxl"):
        pool.model(id).pipeline(Mode.TXT2IMG, pool.model(id).spec.schedulers[0])
    stop.set()
    asker.join()
    assert errors == []
