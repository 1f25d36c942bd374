"""Plans at work: each component where its placement says, peaks under the budget, the image unchanged."""

from __future__ import annotations

import json
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.memory.plan import Placement, Plan
from contracts.memory.policy import Policy
from contracts.requests.parameters import JobParameters
from contracts.storage import Storage
from tests.support.combinations import ALL, covering, usual_or_all
from tests.support.jobs import complete_job, decode_pixels, generate_pixels, make_job
from tests.support.trained import TRAINED_FAMILIES
from worker.offload.offloaded_module import OffloadedModule
from worker.pool.plan_selector import PlanSelector
from worker.pool.pool import Pool

FAMILY_IDS = list(TRAINED_FAMILIES)
#: A pool plans for 95 % of a budget that it enforces.
SHARE = 0.95


def _candidates(catalogue: Catalogue, job: JobParameters, policy: Policy | None = None) -> list[Plan]:
    """Every plan for a job alone, from the fastest to the smallest."""
    return _step_down(PlanSelector(catalogue, 2**40, lambda _: 4, policy), job)


def _step_down(budget: PlanSelector, job: JobParameters) -> list[Plan]:
    """Teach a budget that only the smallest plan holds; returns all of them."""
    assert budget.knows(job.model)
    candidates = [budget.choose(job, job.num_images)]
    while budget.step_down(job, job.num_images):
        candidates.append(budget.choose(job, job.num_images))
    return candidates


def _pool_for(catalogue: Catalogue, candidate: Plan, policy: Policy | None = None) -> Pool:
    """A pool whose enforced budget just admits this plan."""
    return Pool(catalogue, device="cpu", budget_bytes=int(candidate.peak_bytes / SHARE) + 1, policy=policy)


def _watch_placements(pool: Pool, job: JobParameters) -> dict[str, list[dict[str, int]]]:
    """Stage -> bytes of each component on the device, noted in the middle of the stage, again and again."""
    seen: dict[str, list[dict[str, int]]] = {"encode": [], "denoise": [], "decode": []}
    model = pool.ready(job, job.num_images)

    def note(stage: str) -> Any:
        return lambda *_: seen[stage].append(model.placement.device_bytes)

    base, denoiser = model.base, model.family.denoiser
    inner = [module for module in base.components[denoiser].modules() if isinstance(module, torch.nn.Linear)]
    inner[len(inner) // 2].register_forward_hook(note("denoise"))
    base.vae.decoder.conv_norm_out.register_forward_hook(note("decode"))
    base.text_encoder.register_forward_hook(note("encode"))
    return seen


@pytest.mark.parametrize("family", usual_or_all("sd3", FAMILY_IDS))
def test_candidate_plans_run_within_their_bytes_and_give_the_same_image(
    family: str, trained: Catalogue, trained_pool: Pool, storage: Storage
) -> None:
    job = make_job(trained, family, width=128, height=128, num_inference_steps=1)
    candidates = _candidates(trained, job)
    placements = {placement for candidate in candidates for placement in candidate.placements.values()}
    assert {Placement.DEVICE, Placement.ON_DEMAND, Placement.STREAMED} <= placements
    resident, _ = complete_job(job, trained_pool, storage)
    # Each loads the model again.
    rows = {(*one.placements.values(), one.tile_side): one for one in candidates}
    for candidate in candidates if ALL else [rows[row] for row in covering([*rows])]:
        own = _pool_for(trained, candidate)
        seen = _watch_placements(own, job)
        files, receipt = complete_job(job, own, storage)
        assert receipt.memory is not None
        assert (receipt.memory.plan, receipt.memory.ran_out) == (candidate.name, [])
        assert receipt.memory.peak_bytes is not None
        assert receipt.memory.peak_bytes <= candidate.peak_bytes / SHARE
        assert receipt.memory.peak_bytes >= 0.85 * candidate.peak_bytes, candidate.name
        _check_placements(candidate, seen)
        if candidate.tile_side is None:
            assert (files, receipt.deviations) == (resident, []), candidate.name
        else:
            assert receipt.deviations == ["VAE in tiles of 64 pixels"]
            difference = np.abs(decode_pixels(files[0]) - decode_pixels(resident[0]))
            assert difference.mean() < 12, candidate.name


def _check_placements(candidate: Plan, seen: dict[str, list[dict[str, int]]]) -> None:
    stages = {"text_encoder": "encode", "t5": "encode", "denoiser": "denoise", "vae": "decode"}
    for stage, notes in seen.items():
        assert notes
        for part in candidate.components:
            on_device = {note[part.name] for note in notes}
            at_work = stages[part.role] == stage
            if part.placement is Placement.DEVICE:
                assert on_device == {max(on_device)} != {0}
            elif part.placement is Placement.ON_DEMAND:
                assert at_work or on_device == {0}, (candidate.name, stage, part.name)
                assert not at_work or stage == "encode" or on_device != {0}
            elif part.placement is Placement.STREAMED:
                assert max(on_device) <= (part.device_bytes if at_work else 0)
                assert not at_work or stage == "encode" or min(on_device) > 0
            else:
                assert on_device == {0}


@pytest.mark.parametrize(("family", "mode"), covering([*product(FAMILY_IDS, [Mode.IMG2IMG, Mode.CONTROLNET])]))
def test_the_smallest_plan_runs_other_modes_and_adapters_unchanged(
    family: str, mode: Mode, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    job = make_job(catalogue, family, mode, num_inference_steps=2, loras=[{"name": f"{family}-lora"}])
    resident, _ = complete_job(job, pool, storage)
    small = Pool(catalogue, device="cpu", budget_bytes=2**30)
    smallest = _step_down(small.plan_selector, job)[-1]
    files, receipt = complete_job(job, small, storage)
    assert receipt.memory is not None
    assert receipt.memory.plan == smallest.name != "all resident"
    assert set(receipt.placement.values()) & {"on_demand", "streamed"}
    assert receipt.deviations == []
    if smallest.tile_side is None:
        assert files == resident
    else:  # one tile; but guidance's two copies of a control image are encoded one by one, which shows in low bits
        assert np.abs(decode_pixels(files[0]) - decode_pixels(resident[0])).max() <= 1


@pytest.mark.parametrize(("family", "policy"), covering([*product(["sd3", "flux"], ["gpu", "cpu", "on_demand"])]))
def test_t5_works_where_the_operator_wants_it(
    family: str, policy: Any, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    job = make_job(catalogue, family, num_inference_steps=1)
    plain, _ = complete_job(job, pool, storage)
    files, receipt = complete_job(job, Pool(catalogue, device="cpu", policy=Policy(t5=policy)), storage)
    t5 = receipt.placement["text_encoder_3" if family == "sd3" else "text_encoder_2"]
    assert t5 in {"gpu": ["cpu"], "cpu": ["cpu"], "on_demand": ["on_demand", "streamed"]}[policy]
    assert files == plain


@pytest.mark.parametrize("family", usual_or_all("flux", ["sd3", "flux"]))
def test_t5_on_a_cpu_without_bfloat16_gives_the_embeddings_of_the_device_within_their_dtype(
    family: str, catalogue: Catalogue, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tuple(row.model_copy(update={"dtype": "bfloat16"}) for row in catalogue.models)
    narrow = catalogue.model_copy(update={"models": rows})
    job, found = make_job(narrow, family, num_inference_steps=1), []
    for policy in ("gpu", "cpu"):
        pool = Pool(narrow, device="cpu", policy=Policy(t5=policy))
        monkeypatch.setattr("worker.offload.offloaded_module.cpu_has_bfloat16", lambda: False)
        _, receipt = complete_job(job, pool, storage)
        assert receipt.dtype == "bfloat16"
        model = pool.model(job.model)
        assert next(getattr(model.base, model.family.t5 or "").parameters()).dtype == (
            torch.float32 if policy == "cpu" else torch.bfloat16
        )
        (kept,) = [one for key, one in pool.embeddings._embeddings.items() if str(job.prompt) in str(key)]
        assert kept.sequence.dtype == torch.bfloat16
        found.append(kept.sequence.float())
    error = (found[0] - found[1]).norm() / found[1].norm()
    assert 0 < error < 2 * torch.finfo(torch.bfloat16).eps


def test_weights_come_back_from_every_home_as_they_were() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)).to(torch.bfloat16)
    first = [value.clone() for value in module.parameters()]
    offloaded = OffloadedModule(module, torch.device("cpu"))
    for placement in (
        Placement.DEVICE,
        Placement.ON_DEMAND,
        Placement.CPU,
        Placement.STREAMED,
        Placement.DEVICE,
        Placement.SKIPPED,
        Placement.DEVICE,
    ):
        offloaded.move(placement)
        assert offloaded.bytes == sum(tensor.nbytes for tensor in offloaded.tensors)
        if placement in (Placement.ON_DEMAND, Placement.STREAMED):
            assert offloaded.device_bytes == 0
            offloaded.fetch()
            assert offloaded.device_bytes == offloaded.bytes
            offloaded.discard()
    assert all(torch.equal(now, before) for now, before in zip(module.parameters(), first, strict=True))


def test_bytes_are_known_and_who_is_at_home_stays_without_a_walk_through_the_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offloaded = OffloadedModule(torch.nn.Linear(8, 8), torch.device("cpu"))
    offloaded.move(Placement.DEVICE)
    monkeypatch.setattr(offloaded, "module", None)
    offloaded.move(Placement.DEVICE)
    assert (offloaded.bytes, offloaded.resident_bytes) == (288, 288)


def test_a_module_whose_move_failed_moves_again(monkeypatch: pytest.MonkeyPatch) -> None:
    offloaded = OffloadedModule(torch.nn.Linear(8, 8), torch.device("cpu"))
    offloaded.move(Placement.DEVICE)
    with monkeypatch.context() as broken:
        broken.setattr("worker.offload.offloaded_module.HostBuffer", None)
        with pytest.raises(TypeError):
            offloaded.move(Placement.ON_DEMAND)
    found = [offloaded.placement]
    offloaded.move(Placement.DEVICE)
    assert [*found, offloaded.placement] == [None, Placement.DEVICE]
    assert offloaded.resident_bytes == 288


def test_without_t5_sd3_generates_another_image_and_holds_no_t5(
    catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    job = make_job(catalogue, "sd3", num_inference_steps=2)
    blind = Pool(catalogue, device="cpu", policy=Policy(t5="off"))
    files, receipt = complete_job(job, blind, storage)
    assert receipt.memory is not None
    assert receipt.memory.plan == "T5 skipped"
    assert receipt.deviations == ["text_encoder_3 skipped"]
    assert b"text_encoder_3 skipped" in files[0]
    assert blind.model(job.model).base.text_encoder_3 is None
    assert not np.array_equal(decode_pixels(files[0]), generate_pixels(job, pool, storage))
    flux = complete_job(make_job(catalogue, "flux", num_inference_steps=1), blind, storage)[1]
    assert flux.memory is not None
    assert flux.memory.plan == "all resident"


@pytest.mark.parametrize(("dtype", "vae_dtype"), [("float16", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_vae_that_overflows_in_float16_works_in_float32_wherever_it_lives(
    dtype: Any,
    vae_dtype: torch.dtype,
    shipped: Catalogue,
    storage: Storage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(shipped.root / "shapes-sdxl", tmp_path / "sdxl")
    config = json.loads((tmp_path / "sdxl" / "vae" / "config.json").read_text())
    (tmp_path / "sdxl" / "vae" / "config.json").write_text(json.dumps({**config, "force_upcast": True}))
    row = shipped.model("shapes-sdxl").model_copy(update={"source": str(tmp_path / "sdxl"), "dtype": dtype})
    narrow = shipped.model_copy(update={"models": (row,), "default_model": row.id})
    job = make_job(narrow, "sdxl", Mode.IMG2IMG, num_inference_steps=2)
    # Both measure memory, under which some CPUs (seen: AMD EPYC) sum float16 in another order than without.
    pools = [Pool(narrow, device="cpu", budget_bytes=2**30) for _ in range(2)]
    on_demand = next(
        candidate for candidate in _candidates(narrow, job) if candidate.placements["vae"] is Placement.ON_DEMAND
    )
    monkeypatch.setattr(pools[1].plan_selector, "choose", lambda *_: on_demand)
    files = [complete_job(job, pool, storage)[0] for pool in pools]
    assert files[0] == files[1]
    vae = pools[0].model(row.id).base.vae
    assert vae.dtype == vae_dtype
    assert decode_pixels(files[0][0]).std() > 10


@pytest.mark.parametrize("family", usual_or_all("sdxl", FAMILY_IDS))
def test_a_denoiser_in_8_bits_takes_less_gives_nearly_the_same_and_leaves_with_its_plan(
    family: str, trained: Catalogue, trained_pool: Pool, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(trained, family)
    resident, _ = complete_job(job, trained_pool, storage)
    own, candidate = Pool(trained, device="cpu"), _candidates(trained, job)[0]
    with monkeypatch.context() as patch:
        patch.setattr(own.plan_selector, "choose", lambda *_: candidate.model_copy(update={"fp8": True}))
        files, receipt = complete_job(job, own, storage)
    small_bytes = own.resident_bytes
    assert receipt.deviations == ["denoiser in fp8"]
    assert 0 < np.abs(decode_pixels(files[0]) - decode_pixels(resident[0])).mean() < 8
    assert complete_job(job, own, storage)[0] == resident
    assert small_bytes < 0.8 * own.resident_bytes
