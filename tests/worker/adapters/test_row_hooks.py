"""Jobs with different LoRAs in joined calls: each image is what it is alone, no LoRA changes another's rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from contracts.catalogue.catalogue import Catalogue, LoraSpec
from contracts.catalogue.families import Mode
from contracts.jobs.failures import FailureCode
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support.adapters import checkpoint_of, choose_sets, make_short_job, own_adapters
from tests.support.combinations import covering, usual_or_all
from tests.support.jobs import (
    JobStopped,
    RecordingWatch,
    complete_job,
    decode_pixels,
    generate_pixels,
    make_job,
    run_jobs,
)
from tests.support.trained import TRAINED_FAMILIES
from tests.support.weights import write_adapter
from worker.adapters.files import LoraFiles
from worker.adapters.row_hooks import Rows
from worker.pool.pool import Pool

FAMILY_IDS = list(TRAINED_FAMILIES)
EVERY_MODE = [(family.id, mode) for family in TRAINED_FAMILIES.values() for mode in family.modes]

#: An image of joined calls may differ from the same image alone by this many of 255 levels (float32 on the CPU).
BATCH_TOLERANCE_LEVELS = 1


@pytest.fixture(scope="module")
def mixable(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """For each family a second adapter of the denoiser, and one that changes a text encoder too."""
    folder, rows = tmp_path_factory.mktemp("mixable"), list(catalogue.loras)
    for family in TRAINED_FAMILIES:
        for name, rank, text in (("other", 6, False), ("text", 3, True)):
            path = folder / f"{family}-{name}.safetensors"
            write_adapter(path, family, checkpoint_of(catalogue, family), rank=rank, seed=rank, text_encoder=text)
            rows.append(LoraSpec(id=f"{family}-{name}", family=family, source=str(path)))
    return catalogue.model_copy(update={"loras": tuple(rows)})


@pytest.fixture(scope="module")
def mixing(mixable: Catalogue) -> Pool:
    return Pool(mixable, device="cpu")


def _loras(family: str, **scales: float) -> list[dict[str, Any]]:
    return [{"name": f"{family}-{name}", "scale": scale} for name, scale in scales.items()]


def _sets(family: str) -> list[list[dict[str, Any]]]:
    """None, one, the other, both with different scales, the first with another scale, one of a text encoder."""
    first, both = _loras(family, lora=1.0), _loras(family, other=0.5, lora=-0.5)
    return [[], first, _loras(family, other=1.0), both, _loras(family, lora=0.3), _loras(family, text=0.7)]


def _images(outcomes: Sequence[Any], storage: Storage) -> list[Any]:
    assert all(outcome.status == "completed" for outcome in outcomes), outcomes
    return [decode_pixels(storage.read(image.key)) for outcome in outcomes for image in outcome.stored]


@pytest.mark.parametrize("family", usual_or_all("flux", FAMILY_IDS))
def test_images_with_different_adapters_in_joined_calls_are_what_they_are_alone(
    family: str, mixing: Pool, storage: Storage
) -> None:
    both_ways: dict[str, dict[str, Any]] = {"flux": {"true_cfg_scale": 2.0, "negative_prompt": "a green square"}}
    guided = both_ways.get(family, {})
    batch = [
        make_short_job(mixing.catalogue, family, batchable=True, num_images=count, loras=loras, **guided)
        for loras, count in zip(_sets(family), (1, 2, 1, 1, 1, 1), strict=True)
    ]
    outcomes = run_jobs(batch, mixing, storage)
    together = _images(outcomes, storage)
    # The 7 images share each call; FLUX makes a call for each pass of guidance.
    assert [outcome.receipt.mean_rows for outcome in outcomes] == [7 if family == "flux" else 14] * 6
    for job, outcome in zip(batch, outcomes, strict=True):
        named = [(row.id, row.scale) for row in outcome.receipt.loras]
        assert named == [(lora.name, lora.scale) for lora in job.loras]
    alone = [image for job in batch for image in _images(run_jobs(job, mixing, storage), storage)]
    for mixed, single in zip(together, alone, strict=True):
        assert np.abs(mixed - single).max() <= BATCH_TOLERANCE_LEVELS
    # Prompt and seed are the same: the images differ only by their adapters.
    firsts = [alone[index] for index in (0, 1, 3, 4, 5, 6)]
    apart = [np.abs(one - other).max() for i, one in enumerate(firsts) for other in firsts[:i]]
    assert min(apart) > 8


@pytest.mark.parametrize(("family", "mode"), covering(EVERY_MODE))
def test_in_every_mode_an_image_without_adapters_is_unchanged_beside_one_with_adapters(
    family: str, mode: Mode, mixing: Pool, storage: Storage
) -> None:
    batch = [
        make_job(mixing.catalogue, family, mode, batchable=True, num_inference_steps=2, loras=loras)
        for loras in ([], _loras(family, lora=1.0))
    ]
    outcomes = run_jobs(batch, mixing, storage)
    together = _images(outcomes, storage)
    assert all(outcome.receipt.joined for outcome in outcomes)
    alone = [generate_pixels(job, mixing, storage) for job in batch]
    assert not np.array_equal(alone[0], alone[1])
    for mixed, single in zip(together, alone, strict=True):
        assert np.abs(mixed - single).max() <= BATCH_TOLERANCE_LEVELS


# -- the assumption behind it: each job has its own rows in every layer -----------------------------------


@contextmanager
def _recording(module: torch.nn.Module) -> Iterator[dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Record input and output of every layer that a LoRA can change, at its first call."""
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def note(name: str, layer: torch.nn.Module, inputs: Any, result: torch.Tensor) -> None:
        del layer
        seen.setdefault(name, (inputs[0].clone(), result.clone()))

    hooks = [
        layer.register_forward_hook(partial(note, name))
        for name, layer in module.named_modules()
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
    assert len(seen) == len(hooks)


@pytest.mark.parametrize(("family", "mode"), covering(EVERY_MODE))
def test_every_layer_that_an_adapter_can_change_has_separate_rows_for_each_job(
    family: str, mode: Mode, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    """Of three jobs the second gets another prompt and seed: only its rows change, in every layer."""
    denoiser = getattr(pool.model(f"shapes-{family}").base, pool.model(f"shapes-{family}").family.denoiser)
    first_call: dict[str, Any] = {"num_inference_steps": 1, "strength": 1.0}  # no other is recorded
    orders = [
        make_job(catalogue, family, mode, batchable=True, prompt=prompt, seed=seed, **first_call)
        for prompt, seed in (("a red circle", 1), ("a red circle", 2), ("a red circle", 3), ("a blue square", 4))
    ]
    with _recording(denoiser) as before:
        run_jobs(orders[:3], pool, storage)
    with _recording(denoiser) as after:
        run_jobs([orders[0], orders[3], orders[2]], pool, storage)
    assert before.keys() == after.keys()
    changed: set[str] = set()
    for name, tensors in before.items():
        for one, other in zip(tensors, after[name], strict=True):
            passes, rest = divmod(one.shape[0], 3)
            assert (passes in (1, 2), rest) == (True, 0), (name, one.shape)
            rows = [row for row in range(one.shape[0]) if not torch.allclose(one[row], other[row], atol=1e-4)]
            assert {row // passes for row in rows} <= {1}, (name, rows)
            changed |= {name} if rows else set()
    # Layers that depend only on the step and the size have equal rows for all jobs.
    assert len(changed) > 0.8 * len(before)


def test_another_number_of_rows_than_the_call_has_is_refused() -> None:
    """Such as all tokens of all images in one axis, of which nobody knows whose they are."""
    for count in (3, 8):
        with pytest.raises(RuntimeError, match=f"given {count} rows in a call of 4"):
            Rows(0, 2, total=4).apply(lambda inputs, result: result, torch.zeros(count, 4), torch.zeros(count, 4))


def test_the_rows_of_a_job_change_in_every_pass_of_guidance_and_no_other_rows() -> None:
    result = torch.zeros(6, 1)
    Rows(2, 4, total=6).apply(lambda inputs, result: result + inputs, torch.arange(6.0).view(6, 1), result)
    assert result.flatten().tolist() == [0, 0, 2, 3, 0, 0]


# -- failures of one of several jobs ----------------------------------------------------------------------


def _break(catalogue: Catalogue, tmp_path: Path) -> Catalogue:
    """A catalogue with an adapter that does not fit."""
    path = tmp_path / "broken.safetensors"
    tensors = write_adapter(path, "sdxl", checkpoint_of(catalogue, "sdxl"))
    for key in [key for key in tensors if "lora_A" in key]:
        tensors[key] = torch.zeros(4, tensors[key].shape[1] + 8)
    save_file(tensors, path)
    row = LoraSpec(id="broken", family="sdxl", source=str(path))
    return catalogue.model_copy(update={"loras": (*catalogue.loras, row)})


def test_an_adapter_that_does_not_fit_fails_only_its_own_job(
    catalogue: Catalogue, pool: Pool, storage: Storage, tmp_path: Path
) -> None:
    rows = _break(catalogue, tmp_path)

    def job(*names: str) -> JobParameters:
        return make_short_job(rows, "sdxl", batchable=True, loras=[{"name": name} for name in names])

    with own_adapters(pool, "sdxl", LoraFiles(rows)) as adapters:
        outcomes = run_jobs([job(), job("sdxl-lora", "broken"), job("sdxl-lora")], pool, storage)
        assert [outcome.status for outcome in outcomes] == ["completed", "failed", "completed"]
        assert outcomes[1].error.code == FailureCode.LORA_INCOMPATIBLE
        assert [outcome.receipt.joined for outcome in outcomes if outcome.receipt] == [True, True]
        together = _images([outcomes[0], outcomes[2]], storage)
        for mixed, alone in zip(together, (job(), job("sdxl-lora")), strict=True):
            assert np.abs(mixed - generate_pixels(alone, pool, storage)).max() <= BATCH_TOLERANCE_LEVELS
        (failure, other) = run_jobs([job("broken"), job("broken")], pool, storage)
        assert failure.error.code == other.error.code == FailureCode.LORA_INCOMPATIBLE
        assert not adapters.is_active


def test_an_image_that_becomes_nan_by_its_adapter_fails_only_its_own_job(
    mixing: Pool, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [
        make_short_job(mixing.catalogue, "sdxl", batchable=True, loras=loras)
        for loras in ([], _loras("sdxl", lora=1.0), _loras("sdxl", other=1.0))
    ]
    alone = [complete_job(job, mixing, storage)[0] for job in batch]
    (own,) = choose_sets(mixing.model("shapes-sdxl").adapters, batch[1].loras)
    ((loaded, _),) = own.adapters
    change = next(iter(loaded.denoiser.values()))
    monkeypatch.setattr(change, "alpha", float("inf"))
    outcomes = run_jobs(batch, mixing, storage)
    monkeypatch.undo()
    assert [outcome.status for outcome in outcomes] == ["completed", "failed", "completed"]
    assert "NaN or infinite" in outcomes[1].error.message
    for index in (0, 2):
        shared = decode_pixels(storage.read(outcomes[index].stored[0].key))
        assert np.abs(shared - decode_pixels(alone[index][0])).max() <= BATCH_TOLERANCE_LEVELS
    assert [complete_job(job, mixing, storage)[0] for job in batch] == alone


def test_jobs_with_different_adapters_leave_no_trace_when_they_end_or_are_stopped(
    mixing: Pool, storage: Storage
) -> None:
    bare, _, _, both, _, text = _sets("sdxl")
    batch = [make_short_job(mixing.catalogue, "sdxl", batchable=True, loras=loras) for loras in (bare, both, text)]
    alone = [complete_job(job, mixing, storage)[0] for job in batch]
    for stop_after in (None, 1):
        watch = RecordingWatch(stop_after=stop_after, error=JobStopped())
        if stop_after is None:
            run_jobs(batch, mixing, storage, watch)
        else:
            with pytest.raises(JobStopped):
                run_jobs(batch, mixing, storage, watch)
        assert not mixing.model("shapes-sdxl").adapters.is_active
        assert [complete_job(job, mixing, storage)[0] for job in batch] == alone
