"""Images with T2I-Adapters are those of diffusers; beside other jobs they are the same, and no trace is left."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.t2i_adapter.pipeline_stable_diffusion_adapter import _preprocess_adapter_image

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.memory.sizes.component import Role
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from contracts.weights.vae_files import WEIGHTS
from tests.support.combinations import ALL
from tests.support.jobs import INPUT_IMAGES, complete_job, decode_pixels, generate_pixels, make_job, run_jobs
from tests.support.t2i_adapters import with_t2i_adapters
from worker.adapters.files import LoraFiles
from worker.checkpoints.files import ContentHasher
from worker.pool.pool import Pool

_STEPS = 3
_CONTROL = INPUT_IMAGES["inputs/control.png"]
_PIPELINES = {"sdxl": "StableDiffusionXLAdapterPipeline", "sd15": "StableDiffusionAdapterPipeline"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("t2i")


@pytest.fixture(scope="module")
def with_rows(catalogue: Catalogue, folder: Path) -> Catalogue:
    return with_t2i_adapters(catalogue, folder)


@pytest.fixture(scope="module")
def t2i_pool(with_rows: Catalogue) -> Pool:
    return Pool(with_rows, device="cpu")


def _job(catalogue: Catalogue, mode: Mode = Mode.CONTROLNET, *ids: str, **fields: Any) -> JobParameters:
    """A job with these T2I-Adapters and ControlNets, each with its weight and end as `id:weight:end`."""
    controls = []
    for text in ids:
        id, weight, end = (*text.split(":"), "1", "1")[:3]
        controls.append(
            {
                "controlnet": id, "image": "upload:x", "conditioning_scale": float(weight),
                "guidance_end": float(end),
            }
        )  # fmt: skip
    family = ids[0].partition("-")[0]
    return make_job(
        catalogue,
        family,
        mode,
        **{"num_inference_steps": _STEPS, "control_fields": controls, "scheduler": "euler", **fields},
    )


def _load(catalogue: Catalogue, family: str, pipeline: str, **parts: Any) -> Any:
    source = next(row.source for row in catalogue.models if row.family == family)
    made = getattr(diffusers, pipeline).from_pretrained(catalogue.root / source, dtype=torch.float32, **parts)
    made.scheduler = diffusers.EulerDiscreteScheduler.from_config(made.scheduler.config)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.filterwarnings("ignore:The decode_latents method")  # of diffusers' own pipeline
@pytest.mark.parametrize(
    ("family", "id", "end"),
    [("sdxl", "sdxl-t2i-grey", 0.5), ("sd15", "sd15-t2i", 1.0), *[("sdxl", "sdxl-t2i", 1.0)] * ALL],
)
def test_images_are_those_of_diffusers_and_the_receipt_has_the_hash(
    family: str, id: str, end: float, with_rows: Catalogue, t2i_pool: Pool, folder: Path, storage: Storage
) -> None:
    job = _job(with_rows, Mode.CONTROLNET, f"{id}:0.8:{end}", guidance_scale=3.0)
    adapter = diffusers.T2IAdapter.from_pretrained(folder / id)
    image = _CONTROL.convert("L") if adapter.config.in_channels == 1 else _CONTROL
    factor = {"adapter_conditioning_factor": end} if family == "sdxl" else {}
    bare = _load(with_rows, family, _PIPELINES[family], adapter=adapter)(
        prompt="a red circle", image=image, adapter_conditioning_scale=0.8, num_inference_steps=_STEPS,
        guidance_scale=3.0, width=64, height=64, generator=torch.Generator("cpu").manual_seed(7), **factor,
    ).images[0]  # fmt: skip
    plain = make_job(with_rows, family, num_inference_steps=_STEPS, scheduler="euler", guidance_scale=3.0)
    before = generate_pixels(plain, t2i_pool, storage)

    files, receipt = complete_job(job, t2i_pool, storage)

    assert np.array_equal(decode_pixels(files[0]), np.asarray(bare, dtype=np.int16))
    assert not np.array_equal(decode_pixels(files[0]), before)
    (used,) = receipt.controlnets
    assert (used.id, used.scale) == (id, 0.8)
    assert used.sha256 == ContentHasher().hash(folder / id)
    assert receipt.placement[f"controlnet:{id}"] == "cpu"
    assert np.array_equal(generate_pixels(plain, t2i_pool, storage), before)


def test_an_uploaded_one_has_the_same_effect_as_one_of_the_catalogue(
    with_rows: Catalogue, folder: Path, storage: Storage, tmp_path: Path
) -> None:
    pool = Pool(with_rows, device="cpu", lora_files=LoraFiles(with_rows, storage, tmp_path / "files"))
    file = folder / "sdxl-t2i-grey" / WEIGHTS
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    key = f"inputs/{sha256}.0a1b2c3d.safetensors"
    storage.write_file(key, file)
    job = _job(with_rows, Mode.CONTROLNET, "sdxl-t2i-grey:0.8", num_inference_steps=2)
    named = {"controlnet": "mine", "key": key, "sha256": sha256, "values": 1000, "is_t2i_adapter": True}
    uploaded = job.model_copy(update={"controls": tuple(one.model_copy(update=named) for one in job.controls)})

    files, receipt = complete_job(uploaded, pool, storage)

    assert np.array_equal(decode_pixels(files[0]), generate_pixels(job, pool, storage))
    (used,) = receipt.controlnets
    assert (used.id, used.sha256) == ("mine", sha256)
    plan = pool.plan_selector.choose(uploaded, 1)
    assert f"controlnet:{uploaded.controls[0].component}" in plan.placements


def test_in_img2img_beside_a_controlnet_and_another_adapter_features_add_up_as_in_diffusers(
    with_rows: Catalogue, t2i_pool: Pool, folder: Path, storage: Storage
) -> None:
    ids = ("sdxl-t2i", "sdxl-hint", "sdxl-t2i-grey")
    job = _job(with_rows, Mode.CONTROLNET_IMG2IMG, *(f"{id}:0.5" for id in ids), strength=1.0, guidance_scale=3.0)
    with torch.no_grad():
        first, second = (
            diffusers.T2IAdapter.from_pretrained(folder / id)(_preprocess_adapter_image(image, 64, 64))
            for id, image in ((ids[0], _CONTROL), (ids[2], _CONTROL.convert("L")))
        )
    features = [one * 0.5 + other * 0.5 for one, other in zip(first, second, strict=True)]
    hint = next(row for row in with_rows.controlnets if row.id == ids[1])
    net = diffusers.ControlNetModel.from_pretrained(with_rows.root / hint.source)
    pipeline = _load(with_rows, "sdxl", "StableDiffusionXLControlNetImg2ImgPipeline", controlnet=net)

    def add(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        del module
        added = [feature.repeat(2, 1, 1, 1) for feature in features]
        return args, {**kwargs, "down_intrablock_additional_residuals": added}

    pipeline.unet.register_forward_pre_hook(add, with_kwargs=True)
    bare = pipeline(
        prompt="a red circle", image=INPUT_IMAGES["inputs/image.png"], control_image=_CONTROL, strength=1.0,
        controlnet_conditioning_scale=0.5, num_inference_steps=_STEPS, guidance_scale=3.0, width=64, height=64,
        generator=torch.Generator("cpu").manual_seed(7),
    ).images[0]  # fmt: skip

    assert np.array_equal(generate_pixels(job, t2i_pool, storage), np.asarray(bare, dtype=np.int16))


def test_jobs_with_and_without_an_adapter_share_steps_and_each_image_is_that_of_its_job_alone(
    with_rows: Catalogue, t2i_pool: Pool, storage: Storage
) -> None:
    options: dict[str, Any] = {"batchable": True, "guidance_scale": 3.0, "scheduler": "euler"}
    jobs = [
        _job(with_rows, Mode.CONTROLNET, "sdxl-t2i:1:0.5", seed=1, **options),
        make_job(
            with_rows, "sdxl", num_inference_steps=_STEPS, seed=2, loras=[{"name": "sdxl-lora"}],
            **options,
        ),
        _job(with_rows, Mode.CONTROLNET_INPAINT, "sdxl-t2i-grey:0.6", seed=3, strength=1.0, **options),
        _job(with_rows, Mode.CONTROLNET, "sdxl-t2i:0.7", seed=4, guidance={"kind": "pag"}, **options),
    ]  # fmt: skip
    alone = [generate_pixels(job, t2i_pool, storage) for job in jobs]

    results = run_jobs(jobs, t2i_pool, storage)

    for result, expected in zip(results, alone, strict=True):
        assert np.abs(decode_pixels(storage.read(result.stored[0].key)) - expected).max() <= 1
        assert result.receipt.joined


def test_a_plan_counts_the_adapter_and_its_features(with_rows: Catalogue, t2i_pool: Pool) -> None:
    job = _job(with_rows, Mode.CONTROLNET, "sdxl-t2i")
    plain = make_job(with_rows, "sdxl", num_inference_steps=_STEPS)

    chosen, usual = (t2i_pool.plan_selector.choose(one, 1) for one in (job, plain))

    (part,) = [part for part in chosen.components if part.name == "controlnet:sdxl-t2i"]
    values = sum(parameter.numel() for parameter in diffusers.T2IAdapter.from_pretrained(
        with_rows.controlnet("sdxl-t2i").source).parameters())  # fmt: skip
    assert (part.role, part.bytes) == (Role.CONTROLNET, 4 * values)
    assert chosen.peak_bytes > usual.peak_bytes + part.bytes
