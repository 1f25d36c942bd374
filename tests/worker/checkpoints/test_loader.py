"""Where weights come from: folders, single files, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec
from contracts.catalogue.families import Mode
from contracts.catalogue.rows.models import ModelSpec
from contracts.jobs.failures import FailureCode
from contracts.jobs.records import JobError
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support.combinations import covering
from tests.support.jobs import complete_job, fail_job, generate_pixels, make_job
from tests.support.original_layout import write_sd3_file, write_sdxl_file, write_unet_file
from tests.support.trained import TRAINED_FAMILIES
from worker.checkpoints import loader as checkpoints
from worker.families import get_family
from worker.pool.pool import Pool
from worker.runtime.device import pick_dtype


def _pool(catalogue: Catalogue, source: Path, family: str = "sdxl", **fields: object) -> Pool:
    """A pool whose model of the family comes from elsewhere."""
    old = catalogue.model(f"shapes-{family}")
    row = ModelSpec.model_validate({**old.model_dump(), "source": str(source), **fields})
    return Pool(catalogue.model_copy(update={"models": (row,), "default_model": row.id}), device="cpu")


def _failure(pool: Pool, storage: Storage, family: str = "sdxl") -> JobError:
    error = fail_job(make_job(pool.catalogue, family), pool, storage)
    assert error.code == FailureCode.MODEL_LOAD_FAILED
    assert error.message.startswith(f"shapes-{family} cannot be loaded: ")
    return error


@pytest.fixture(scope="module")
def sd3_two_widths(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for SD3, whose single files leave out the projection of the first encoder."""
    folder = tmp_path_factory.mktemp("two-widths") / "sd3"
    source = catalogue.root / "shapes-sd3"
    torch.manual_seed(0)
    text = transformers.CLIPTextConfig.from_pretrained(source / "text_encoder", hidden_size=32, projection_dim=32)
    encoder = transformers.CLIPTextModelWithProjection(text)
    torch.nn.init.eye_(encoder.text_projection.weight)
    transformer = diffusers.SD3Transformer2DModel.load_config(source / "transformer")
    diffusers.StableDiffusion3Pipeline.from_pretrained(
        source,
        dtype=torch.float32,
        text_encoder=encoder,
        transformer=diffusers.SD3Transformer2DModel.from_config({**transformer, "pooled_projection_dim": 32 + 64}),
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sdxl_file(two_widths: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small SDXL as one file."""
    file = tmp_path_factory.mktemp("files") / "sdxl.safetensors"
    write_sdxl_file(two_widths, file)
    return file


@pytest.fixture(scope="module")
def sd3_file(sd3_two_widths: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small SD3 as one file."""
    file = tmp_path_factory.mktemp("files") / "sd3.safetensors"
    write_sd3_file(sd3_two_widths, file)
    return file


@pytest.fixture(scope="module")
def whole(two_widths: Path, catalogue: Catalogue) -> Pool:
    """A pool with the small SDXL from its folder."""
    return _pool(catalogue, two_widths)


@pytest.fixture(scope="module")
def whole_sd3(sd3_two_widths: Path, catalogue: Catalogue) -> Pool:
    """A pool with the small SD3 from its folder."""
    return _pool(catalogue, sd3_two_widths, "sd3")


def _job(catalogue: Catalogue, family: str = "sdxl") -> JobParameters:
    """Of one step: weights that differ show in it."""
    return make_job(catalogue, family, num_inference_steps=1)


def _same_weights(first: Pool, second: Pool) -> bool:
    (id,) = first.warm or second.warm
    parts = [pool.model(id).base.components for pool in (first, second)]
    states = [
        {name: part.state_dict() for name, part in every.items() if isinstance(part, torch.nn.Module)}
        for every in parts
    ]
    return all(
        torch.equal(tensor, states[1][name][key])
        for name, state in states[0].items()
        for key, tensor in state.items()
    )


def test_a_single_file_in_the_original_sdxl_layout_gives_the_same_image_as_its_folder(
    sdxl_file: Path, two_widths: Path, whole: Pool, catalogue: Catalogue, storage: Storage
) -> None:
    single, job = _pool(catalogue, sdxl_file, config=str(two_widths)), _job(catalogue)
    assert np.array_equal(generate_pixels(job, whole, storage), generate_pixels(job, single, storage))
    assert _same_weights(whole, single)


def test_a_file_with_the_unet_alone_takes_the_rest_from_its_config(
    two_widths: Path, whole: Pool, catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    write_unet_file(two_widths, tmp_path / "unet.safetensors")
    pool = _pool(catalogue, tmp_path / "unet.safetensors", config=str(two_widths))
    complete_job(_job(catalogue), pool, storage)
    assert _same_weights(pool, whole)


def test_a_single_file_in_the_original_sd3_layout_gives_the_same_image_as_its_folder(
    sd3_file: Path, sd3_two_widths: Path, whole_sd3: Pool, catalogue: Catalogue, storage: Storage
) -> None:
    single, job = _pool(catalogue, sd3_file, "sd3", config=str(sd3_two_widths)), _job(catalogue, "sd3")
    assert np.array_equal(generate_pixels(job, whole_sd3, storage), generate_pixels(job, single, storage))
    assert _same_weights(whole_sd3, single)


def test_an_sd3_file_without_t5_takes_it_from_its_config(
    sd3_file: Path,
    sd3_two_widths: Path,
    whole_sd3: Pool,
    catalogue: Catalogue,
    storage: Storage,
    tmp_path: Path,
) -> None:
    file = tmp_path / "sd3.safetensors"
    save_file({key: tensor for key, tensor in load_file(sd3_file).items() if "t5xxl" not in key}, file)
    pool = _pool(catalogue, file, "sd3", config=str(sd3_two_widths))
    complete_job(_job(catalogue, "sd3"), pool, storage)
    assert _same_weights(whole_sd3, pool)


def test_a_file_that_does_not_tell_what_it_is_is_loaded_once_and_planned_by_what_it_turned_out_to_be(
    sdxl_file: Path,
    two_widths: Path,
    whole: Pool,
    catalogue: Catalogue,
    storage: Storage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its configuration comes from a hub: here from the hub's cache, which is laid out by hand."""
    snapshot = tmp_path / "models--somebody--something" / "snapshots" / ("0" * 40)
    shutil.copytree(two_widths, snapshot)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("0" * 40)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    loaded, load = [], checkpoints.load_model

    def count(*arguments: Any) -> Any:
        loaded.append(arguments[1].id)
        return load(*arguments)

    monkeypatch.setattr(checkpoints, "load_model", count)
    expected = generate_pixels(_job(catalogue), whole, storage)
    loaded.clear()
    pool = _pool(catalogue, sdxl_file, config="somebody/something")
    assert pool.plan_selector.has_unknown_components("shapes-sdxl")
    pool.prepare("shapes-sdxl")
    generated = generate_pixels(_job(catalogue), pool, storage)
    assert loaded == ["shapes-sdxl"]
    assert not pool.plan_selector.has_unknown_components("shapes-sdxl")
    assert np.array_equal(generated, expected)


def test_a_single_file_with_a_gap_is_refused(
    sdxl_file: Path, two_widths: Path, catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    file, tensors = tmp_path / "sdxl.safetensors", load_file(sdxl_file)
    del tensors["conditioner.embedders.1.model.transformer.resblocks.0.mlp.c_fc.weight"]
    save_file(tensors, file)
    failure = _failure(_pool(catalogue, file, config=str(two_widths)), storage)
    assert "text_encoder_2" in failure.message


def test_a_variant_is_loaded_where_it_is_there_and_missed_where_it_is_not(
    catalogue: Catalogue, pool: Pool, storage: Storage, tmp_path: Path
) -> None:
    pool.model("shapes-sdxl").base.save_pretrained(tmp_path / "variant", variant="fp16")
    expected = generate_pixels(_job(catalogue), pool, storage)
    chosen = _pool(catalogue, tmp_path / "variant", variant="fp16")
    assert np.array_equal(generate_pixels(_job(catalogue), chosen, storage), expected)
    _failure(_pool(catalogue, tmp_path / "variant", variant="other"), storage)


@pytest.fixture
def broken(catalogue: Catalogue, tmp_path: Path) -> Path:
    """A copy of the SDXL checkpoint that a test may break."""
    return Path(shutil.copytree(catalogue.root / "shapes-sdxl", tmp_path / "broken"))


def test_pickled_weights_are_never_opened(broken: Path, catalogue: Catalogue, storage: Storage) -> None:
    (weights,) = (broken / "unet").glob("*.safetensors")
    torch.save(load_file(weights), broken / "unet" / "diffusion_pytorch_model.bin")
    weights.unlink()
    _failure(_pool(catalogue, broken), storage)


def test_a_pickle_in_one_file_is_never_opened(catalogue: Catalogue, storage: Storage, tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "model.ckpt")
    assert "safetensors" in _failure(_pool(catalogue, tmp_path / "model.ckpt"), storage).message


def test_truncated_weights_are_a_load_failure_and_other_models_work_on(
    broken: Path, catalogue: Catalogue, storage: Storage
) -> None:
    (weights,) = (broken / "vae").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    row = catalogue.model("shapes-sdxl").model_copy(update={"source": str(broken)})
    others = tuple(model for model in catalogue.models if model.id != row.id)
    pool = Pool(catalogue.model_copy(update={"models": (row, *others)}), device="cpu")
    _failure(pool, storage)
    complete_job(make_job(pool.catalogue, "sana"), pool, storage)
    assert pool.warm == ["tiny-sana"]


def test_a_checkpoint_of_another_family_is_a_load_failure(catalogue: Catalogue, storage: Storage) -> None:
    _failure(_pool(catalogue, catalogue.root / "shapes-flux"), storage)


def test_a_source_that_is_not_there_is_a_load_failure(catalogue: Catalogue, storage: Storage) -> None:
    failure = _failure(_pool(catalogue, Path("/nowhere/at-all")), storage)
    assert "was not found on this machine" in failure.message


def test_a_controlnet_that_cannot_be_loaded_is_a_load_failure(
    catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    row = ControlNetSpec(id="sdxl-hint", family="sdxl", source=str(tmp_path))
    pool = Pool(catalogue.model_copy(update={"controlnets": (row,)}), device="cpu")
    failure = fail_job(make_job(pool.catalogue, "sdxl", Mode.CONTROLNET), pool, storage)
    assert failure.code == FailureCode.MODEL_LOAD_FAILED
    assert failure.message.startswith("sdxl-hint ")


@pytest.mark.parametrize(
    ("dtype", "device", "expected"),
    [
        ("auto", "cpu", torch.float32),
        ("auto", "cuda", torch.bfloat16),
        ("float16", "cuda", torch.float16),
        ("bfloat16", "cpu", torch.bfloat16),
    ],
)
def test_the_dtype_follows_the_row_or_else_the_device(
    dtype: str, device: str, expected: torch.dtype, catalogue: Catalogue
) -> None:
    row = catalogue.model("shapes-sdxl").model_copy(update={"dtype": dtype})
    assert pick_dtype(row, torch.device(device)) == expected


@pytest.fixture(scope="module")
def narrow(catalogue: Catalogue) -> Pool:
    """A pool that computes in bfloat16."""
    rows = tuple(row.model_copy(update={"dtype": "bfloat16"}) for row in catalogue.models)
    return Pool(catalogue.model_copy(update={"models": rows}), device="cpu")


@pytest.mark.parametrize(
    ("family", "mode"),
    covering([(family, mode) for family in TRAINED_FAMILIES for mode in get_family(family).pipelines]),
)
def test_every_family_and_mode_runs_in_bfloat16(family: str, mode: Mode, narrow: Pool, storage: Storage) -> None:
    job = make_job(narrow.catalogue, family, mode, num_inference_steps=1, strength=1.0)
    _, receipt = complete_job(job, narrow, storage)
    assert receipt.dtype == "bfloat16"
