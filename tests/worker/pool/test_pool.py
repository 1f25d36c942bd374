"""The warm pool: one set of weights for all tasks, fresh objects for every job, room made by last use."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.jobs.failures import JobFailed
from contracts.memory.plan import Placement
from contracts.memory.policy import Policy
from contracts.metrics import Counters
from contracts.requests.entry_parameters import ControlParameters
from contracts.storage import Storage
from tests.support import hub_repositories
from tests.support.combinations import usual_or_all
from tests.support.hub import serving, use_hub
from tests.support.jobs import complete_job, make_job
from tests.support.trained import TRAINED_FAMILIES
from tests.support.weights import count_parameters
from worker.checkpoints.sources import fetch_component
from worker.families import get_family
from worker.offload.offloaded_module import OffloadedModule
from worker.pool.pipelines import derive
from worker.pool.pool import Pool

FAMILY_IDS = list(TRAINED_FAMILIES)


def _tensors(pipeline: Any) -> dict[str, int]:
    """Every weight of a pipeline, with where it lies in memory."""
    return {
        f"{name}.{key}": tensor.data_ptr()
        for name, part in pipeline.components.items()
        if isinstance(part, torch.nn.Module)
        for key, tensor in [*part.named_parameters(), *part.named_buffers()]
    }


@pytest.mark.parametrize("family", FAMILY_IDS)
def test_all_tasks_of_a_model_share_one_set_of_weights(family: str, catalogue: Catalogue, pool: Pool) -> None:
    model = pool.model(f"shapes-{family}")
    base = _tensors(model.base)
    for mode in get_family(family).pipelines:
        controls = [f"{family}-hint"] if "controlnet" in mode else []
        for id in controls:
            path = fetch_component(catalogue, catalogue.controlnet(id))
            model.load_controlnet(ControlParameters(controlnet=id), path)
        derived = _tensors(model.pipeline(mode, model.spec.schedulers[0], controls))
        shared = {name: place for name, place in derived.items() if not name.startswith("controlnet.")}
        # SD3's ControlNet pipelines hold their VAE in a wrapper.
        assert shared == {name: base[name] for name in shared}
        assert any(name.startswith(model.family.denoiser) for name in shared)


@pytest.mark.parametrize("family", usual_or_all("sdxl", FAMILY_IDS))
def test_a_second_task_adds_no_parameters(family: str, catalogue: Catalogue, pool: Pool, storage: Storage) -> None:
    pool.model(f"shapes-{family}")
    before = count_parameters()
    for mode in (Mode.IMG2IMG, Mode.INPAINT):
        complete_job(make_job(catalogue, family, mode, num_inference_steps=2), pool, storage)
    assert count_parameters() == before


def test_a_controlnet_is_loaded_once(catalogue: Catalogue, pool: Pool) -> None:
    model = pool.model("shapes-sdxl")
    path = fetch_component(catalogue, catalogue.controlnet("sdxl-hint"))
    model.load_controlnet(ControlParameters(controlnet="sdxl-hint"), path)
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


def test_pipelines_compute_where_the_worker_says(catalogue: Catalogue, pool: Pool) -> None:
    """Overrides a private property of diffusers; should it be renamed, this test says so."""
    assert isinstance(diffusers.DiffusionPipeline._execution_device, property)
    model = pool.model("shapes-sdxl")
    pipeline = model.pipeline(Mode.TXT2IMG, "euler")
    assert pipeline._execution_device == model.device
    assert "_execution_device" in vars(type(pipeline))


def test_derive_keeps_the_pipelines_own_settings(catalogue: Catalogue, pool: Pool) -> None:
    base = pool.model("shapes-sdxl").base
    for value in (True, False):
        base.register_to_config(force_zeros_for_empty_prompt=value)
        derived = derive(diffusers.StableDiffusionXLControlNetPipeline, base, controlnet=None)
        assert derived.config.force_zeros_for_empty_prompt is value
    base.register_to_config(force_zeros_for_empty_prompt=True)


def test_a_move_that_fails_half_way_leaves_no_half_moved_model(
    catalogue: Catalogue, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, job = Pool(catalogue, device="cpu", max_models=1, host_bytes=2**30), make_job(catalogue, "sana")
    first = complete_job(job, pool, storage)[0]
    pool.model("tiny-pixart")
    assert pool.report()["in_host_memory"] == [job.model]
    move, moved = OffloadedModule.move, []

    def break_off(self: OffloadedModule, home: Placement) -> None:
        moved.append(home)
        if moved.count(Placement.DEVICE) == 2:
            raise torch.OutOfMemoryError("the device is full")
        move(self, home)

    monkeypatch.setattr(OffloadedModule, "move", break_off)
    with pytest.raises(torch.OutOfMemoryError):
        pool.ready(job, 1)
    monkeypatch.undo()
    assert pool.warm == ["tiny-pixart"]
    assert complete_job(job, pool, storage)[0] == first


def test_a_model_that_comes_back_makes_the_same_bytes(catalogue: Catalogue, storage: Storage) -> None:
    pool, job = Pool(catalogue, device="cpu", max_models=1), make_job(catalogue, "sana")
    first, _ = complete_job(job, pool, storage)
    complete_job(make_job(catalogue, "pixart"), pool, storage)
    assert pool.warm == ["tiny-pixart"]
    assert complete_job(job, pool, storage)[0] == first


def test_what_is_prepared_from_a_hub_is_reported_with_its_real_sizes(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = catalogue.model("shapes-sdxl").model_copy(update={"source": "org/sdxl"})
    net = catalogue.controlnet("sdxl-hint").model_copy(update={"source": "org/net"})
    rows = catalogue.model_copy(update={"models": (away,), "default_model": away.id, "controlnets": (net,)})
    with serving() as hub:
        use_hub(monkeypatch, hub, tmp_path / "home")
        hub.commit("org/sdxl", hub_repositories.checkpoint())
        hub.commit("org/net", hub_repositories.controlnet())
        pool = Pool(rows, device="cpu")
        pixels = pool.plan_selector.default_plan(away.id).batch_pixels
        assert pool.report()["capacity"].models[away.id].origin == "architecture"
        hub.stop()
        assert not pool.fetcher.measure_missing()
        hub.start()
        assert pool.fetcher.measure_missing()
        assert pool.report()["capacity"].models[away.id].origin == "hub"
        assert pool.report()["capacity"].extras["controlnet:sdxl-hint"].origin == "hub"
        assert pool.plan_selector.default_plan(away.id).batch_pixels > pixels
        assert not any(size > 500_000 for size in hub.fetched("org/sdxl").values())
        for name in (away.id, "controlnet:sdxl-hint"):
            pool.prepare(name)
    capacity = pool.report()["capacity"]
    parts = [*capacity.models[away.id].components, capacity.extras["controlnet:sdxl-hint"]]
    assert {part.origin for part in parts} == {capacity.models[away.id].origin} == {"files"}
    assert all(0 < part.bytes < 40_000_000 for part in parts)


def test_a_worker_without_t5_makes_the_same_image_whether_or_not_the_files_of_t5_are_here(
    catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    whole = catalogue.root / catalogue.model("shapes-sd3").source
    lacking = tmp_path / "shapes-sd3"
    for file in whole.rglob("*"):
        target = lacking / file.relative_to(whole)
        if file.is_dir():
            target.mkdir(parents=True)
        elif not (file.parent.name == "text_encoder_3" and file.suffix == ".safetensors"):
            target.symlink_to(file)
    model = catalogue.model("shapes-sd3").model_copy(update={"source": str(lacking)})
    without = catalogue.model_copy(update={"models": (model,), "default_model": model.id})
    made = [
        complete_job(make_job(rows, "sd3"), Pool(rows, device="cpu", policy=Policy(t5="off")), storage)
        for rows in (catalogue, without)
    ]
    pixels = [Image.open(io.BytesIO(files[0])).tobytes() for files, _ in made]
    assert pixels[0] == pixels[1]
    assert [receipt.deviations for _, receipt in made] == [["text_encoder_3 skipped"]] * 2


def test_the_report_tells_what_is_warm_and_where_it_lies(catalogue: Catalogue) -> None:
    pool = Pool(catalogue, device="cpu")
    assert (pool.report()["warm"], pool.report()["placement"]) == ([], {})
    pool.ready(make_job(catalogue, "flux", Mode.CONTROLNET), 1)
    report = pool.report()
    assert report["warm"] == ["shapes-flux"]
    assert report["placement"]["shapes-flux"] == {
        "vae": "cpu", "text_encoder": "cpu", "text_encoder_2": "cpu", "transformer": "cpu",
        "controlnet:flux-hint": "cpu",
    }  # fmt: skip


def test_what_cudas_allocator_had_to_do_again_is_counted_once_for_the_model_that_was_served(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = Counters()
    pool = Pool(catalogue, device="cpu", counters=counters)
    assert pool.take_peak("shapes-sdxl") is None
    assert counters.drain() == {}
    monkeypatch.setattr(pool.memory_tracker, "take_peak", lambda: (5, 2))  # a CPU has no such allocator
    assert pool.take_peak("shapes-sdxl") == 5
    assert counters.drain() == {'["allocator_retries","","shapes-sdxl"]': 2}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"modes": ("canny", "depth")}, r"controls\.0\.mode is required: .* is a union of 2 kinds"),
        ({"kind": "inpaint"}, r"controls\.0\.image is not used: .* reads the job's image and mask_image"),
        ({"models": ("other",)}, r"controls\.0\.controlnet .* works with other, and not with shapes-sdxl"),
    ],
)
def test_a_job_whose_controlnet_became_another_while_it_waited_is_refused_by_what_changed(
    changes: dict[str, Any], reason: str, catalogue: Catalogue
) -> None:
    job = make_job(catalogue, "sdxl", Mode.CONTROLNET)
    row = catalogue.controlnet(job.controls[0].name).model_copy(update=changes)
    changed = catalogue.model_copy(update={"controlnets": (row,)})
    message = f"was changed in the catalogue while the job was waiting: {reason}.*; send the request again"
    with pytest.raises(JobFailed, match=message):
        Pool(changed, device="cpu").ready(job, 1)
