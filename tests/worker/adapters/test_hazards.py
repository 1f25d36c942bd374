"""Hazards of LoRAs, each reproduced in diffusers and peft and prevented here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from contracts.catalogue.catalogue import Catalogue, LoraSpec
from contracts.jobs.failures import FailureCode
from contracts.jobs.records import JobError
from contracts.storage import Storage
from tests.support.adapters import checkpoint_of, generate_with_lora, make_short_job, own_adapters
from tests.support.combinations import usual_or_all
from tests.support.jobs import (
    JobStopped,
    RecordingWatch,
    complete_job,
    fail_job,
    make_job,
    run_jobs,
)
from tests.support.trained import TRAINED_FAMILIES
from tests.support.weights import to_kohya, write_adapter
from worker.adapters.files import Limits, LoraFiles
from worker.pool.pool import Pool

FAMILY_IDS = list(TRAINED_FAMILIES)
Tensors = dict[str, torch.Tensor]


def _failure(pool: Pool, storage: Storage, family: str) -> JobError:
    error = fail_job(make_job(pool.catalogue, family, loras=[{"name": "extra"}]), pool, storage)
    assert error.code == FailureCode.LORA_INCOMPATIBLE
    assert len(error.message) < 500
    return error


def test_hazard_1_evicting_an_adapter_activates_no_other(
    two_adapters: Catalogue, pool: Pool, storage: Storage
) -> None:
    bare, *adapted = (
        make_short_job(two_adapters, "sdxl", loras=loras)
        for loras in ([], [{"name": "sdxl-lora"}], [{"name": "extra"}])
    )
    alone = []
    for job in (bare, *adapted):
        with own_adapters(pool, "sdxl", LoraFiles(two_adapters)):
            alone.append(complete_job(job, pool, storage)[0])
    assert alone[0] != alone[1] != alone[2]
    with own_adapters(pool, "sdxl", LoraFiles(two_adapters, limits=Limits(loaded=1))) as adapters:
        for number in (1, 2, 1):
            assert complete_job(adapted[number - 1], pool, storage)[0] == alone[number]
            assert adapters.loaded == (adapted[number - 1].loras[0].name,)
            assert complete_job(bare, pool, storage)[0] == alone[0]


def test_hazard_2_an_adapter_that_fits_only_one_component_has_no_effect_at_all(
    add_lora: Callable[..., Pool], catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    path = tmp_path / "lora.safetensors"
    tensors = write_adapter(path, "sdxl", checkpoint_of(catalogue, "sdxl"), text_encoder=True)
    key = next(key for key in tensors if key.startswith("text_encoder.") and "lora_A" in key)
    tensors[key] = torch.zeros(4, 7)
    pool = add_lora("sdxl", tensors)
    base, _ = complete_job(make_short_job(catalogue, "sdxl"), pool, storage)
    assert "text_encoder" in _failure(pool, storage, "sdxl").message
    assert complete_job(make_short_job(catalogue, "sdxl"), pool, storage)[0] == base


def test_hazard_2_a_switch_that_fails_half_way_leaves_no_trace(
    catalogue: Catalogue, pool: Pool, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, _ = complete_job(make_short_job(catalogue, "sdxl"), pool, storage)
    adapted = generate_with_lora(pool, storage, "sdxl", "sdxl-lora")
    register, calls = torch.nn.Module.register_forward_hook, []

    def break_off(self: torch.nn.Module, *hook: Any, **options: Any) -> Any:
        calls.append(hook)
        if len(calls) == 5:
            raise RuntimeError("the device went away")
        return register(self, *hook, **options)

    monkeypatch.setattr(torch.nn.Module, "register_forward_hook", break_off)
    fail_job(make_short_job(catalogue, "sdxl", loras=[{"name": "sdxl-lora"}]), pool, storage)
    monkeypatch.undo()
    assert complete_job(make_short_job(catalogue, "sdxl"), pool, storage)[0] == base
    assert np.array_equal(generate_with_lora(pool, storage, "sdxl", "sdxl-lora"), adapted)


def test_hazard_3_an_adapter_works_after_jobs_without_adapters(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    first = generate_with_lora(pool, storage, "sdxl", "sdxl-lora")
    complete_job(make_short_job(catalogue, "sdxl"), pool, storage)
    assert np.array_equal(generate_with_lora(pool, storage, "sdxl", "sdxl-lora"), first)


def test_hazard_4_an_aborted_job_leaves_no_scale_behind(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    whole = generate_with_lora(pool, storage, "sdxl", "sdxl-lora")
    half = make_short_job(catalogue, "sdxl", loras=[{"name": "sdxl-lora", "scale": 0.5}])
    with pytest.raises(JobStopped):
        run_jobs(half, pool, storage, RecordingWatch(stop_after=1, error=JobStopped()))
    assert np.array_equal(generate_with_lora(pool, storage, "sdxl", "sdxl-lora"), whole)


def test_hazard_4_a_failure_while_encoding_leaves_no_text_encoder_changed(
    add_lora: Callable[..., Pool],
    catalogue: Catalogue,
    storage: Storage,
    tmp_path: Path,
) -> None:
    path = tmp_path / "lora.safetensors"
    write_adapter(path, "sdxl", checkpoint_of(catalogue, "sdxl"), text_encoder=True)
    pool = add_lora("sdxl", path)
    base, _ = complete_job(make_short_job(catalogue, "sdxl"), pool, storage)
    encoder = pool.model("shapes-sdxl").base.text_encoder_2

    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("the encoder went away")

    handle = encoder.register_forward_pre_hook(fail)
    fail_job(make_short_job(pool.catalogue, "sdxl", loras=[{"name": "extra", "scale": 0.5}]), pool, storage)
    handle.remove()
    assert complete_job(make_short_job(catalogue, "sdxl"), pool, storage)[0] == base


@pytest.mark.parametrize("family", usual_or_all("flux", FAMILY_IDS))
def test_hazard_5_an_adapter_of_another_width_is_refused_and_does_not_widen_the_model(
    family: str,
    add_lora: Callable[..., Pool],
    catalogue: Catalogue,
    storage: Storage,
    tmp_path: Path,
) -> None:
    tensors = write_adapter(tmp_path / "a.safetensors", family, checkpoint_of(catalogue, family))
    for key in [key for key in tensors if "lora_A" in key]:
        tensors[key] = torch.zeros(4, tensors[key].shape[1] + 8)
    pool = add_lora(family, tensors)
    base, _ = complete_job(make_short_job(catalogue, family), pool, storage)
    assert "is made for" in _failure(pool, storage, family).message
    assert complete_job(make_short_job(catalogue, family), pool, storage)[0] == base


@pytest.mark.parametrize(
    "tensors",
    [
        {"elsewhere.a.lora_A.weight": torch.zeros(4, 8), "elsewhere.a.lora_B.weight": torch.zeros(8, 4)},
        {"unet.no.layer.lora_A.weight": torch.ones(4, 8), "unet.no.layer.lora_B.weight": torch.ones(8, 4)},
        {"unet.conv_in.hada_w1_a": torch.ones(4, 8)},
        {"weight": torch.zeros(4)},
    ],
)
def test_hazard_6_a_file_without_effect_is_refused(
    tensors: Tensors, add_lora: Callable[..., Pool], storage: Storage
) -> None:
    _failure(add_lora("sdxl", tensors), storage, "sdxl")


@pytest.mark.parametrize("other", FAMILY_IDS)
def test_hazard_6_an_adapter_of_another_family_is_refused(
    other: str, add_lora: Callable[..., Pool], catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    family = FAMILY_IDS[FAMILY_IDS.index(other) - 1]
    write_adapter(tmp_path / "a.safetensors", other, checkpoint_of(catalogue, other))
    pool = add_lora(family, tmp_path / "a.safetensors")
    base, _ = complete_job(make_short_job(catalogue, family), pool, storage)
    _failure(pool, storage, family)
    assert complete_job(make_short_job(catalogue, family), pool, storage)[0] == base


def test_hazard_6_weights_with_nan_are_refused(
    add_lora: Callable[..., Pool], catalogue: Catalogue, storage: Storage, weights_folder: Path
) -> None:
    tensors = load_file(weights_folder / "sdxl.safetensors")
    tensors[next(iter(tensors))][0, 0] = float("nan")
    assert "NaN or infinite" in _failure(add_lora("sdxl", tensors), storage, "sdxl").message


def test_hazard_7_an_adapter_may_have_the_name_of_a_torch_method(
    catalogue: Catalogue, pool: Pool, storage: Storage, weights_folder: Path
) -> None:
    names, source = ("half", "train", "v1.5", "to"), str(weights_folder / "sdxl.safetensors")
    named = tuple(LoraSpec(id=name, family="sdxl", source=source) for name in names)
    rows = catalogue.model_copy(update={"loras": named})
    job = make_short_job(rows, "sdxl", loras=[{"name": name, "scale": 0.25} for name in names])
    with own_adapters(pool, "sdxl", LoraFiles(rows)):
        _, receipt = complete_job(job, pool, storage)
    assert tuple(lora.id for lora in receipt.loras) == names


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_hazard_8_a_pickle_is_never_opened(
    suffix: str, catalogue: Catalogue, pool: Pool, storage: Storage, weights_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"pickle{suffix}"
    torch.save(load_file(weights_folder / "sdxl.safetensors"), path)
    row = LoraSpec(id="pickle", family="sdxl", source=str(path))
    rows = catalogue.model_copy(update={"loras": (row,)})
    with own_adapters(pool, "sdxl", LoraFiles(rows)):
        error = fail_job(make_job(rows, "sdxl", loras=[{"name": "pickle"}]), pool, storage)
    is_named_safetensors = suffix == ".safetensors"
    assert error.code == (FailureCode.LORA_DAMAGED if is_named_safetensors else FailureCode.LORA_INCOMPATIBLE)


def test_hazard_9_a_switch_keeps_an_alpha_that_differs_from_the_rank(
    add_lora: Callable[..., Pool], catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    """diffusers' hotswap loses it at the first `set_adapters`."""
    tensors = write_adapter(tmp_path / "a.safetensors", "sdxl", checkpoint_of(catalogue, "sdxl"), rank=8, seed=3)
    plain = generate_with_lora(add_lora("sdxl", to_kohya(tensors, alpha=8.0)), storage, "sdxl")
    pool = add_lora("sdxl", to_kohya(tensors, alpha=2.0))
    first = generate_with_lora(pool, storage, "sdxl")
    assert not np.array_equal(plain, first)
    swapped = generate_with_lora(pool, storage, "sdxl", "sdxl-lora")
    assert np.array_equal(generate_with_lora(pool, storage, "sdxl"), first)
    assert not np.array_equal(swapped, first)
