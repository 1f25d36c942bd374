"""What this worker's models may do within its budget."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode
from contracts.catalogue.reader import read_catalogue
from contracts.memory.plan import Placement
from contracts.memory.sizes.models import read_components
from contracts.settings import BUILT_IN_CATALOGUE
from tests.support.hub import serving, use_hub
from tests.support.hub_repositories import checkpoint
from tests.support.jobs import make_job
from worker.pool.plan_selector import PlanSelector
from worker.pool.pool import Pool

MIB = 2**20


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_headers_tell_exactly_what_is_loaded(family: str, trained: Catalogue, trained_pool: Pool) -> None:
    spec = next(row for row in trained.models if row.family == family)
    loaded = {
        name: sum(parameter.numel() for parameter in part.parameters()) * 4
        for name, part in trained_pool.model(spec.id).base.components.items()
        if isinstance(part, torch.nn.Module)
    }
    model = read_components(trained, spec, 4)
    assert model is not None
    counted = {component.name: component.bytes for component in model.components}
    assert counted.keys() == loaded.keys()
    for name, size in loaded.items():
        # SD3's position table is a buffer, which the file holds and `parameters` does not list.
        assert counted[name] >= size
        assert counted[name] - size <= 0.1 * counted[name]


def test_all_local_models_are_planned(catalogue: Catalogue) -> None:
    budget = PlanSelector(catalogue, 1024 * MIB, lambda _: 4)
    for row in catalogue.models:
        one = budget.default_plan(row.id)
        assert one.name == "all resident"
        assert 0 < sum(part.bytes for part in one.components) < 40_000_000
        assert one.batch_pixels > 256 * 256


def test_a_tight_budget_is_planned_tightly() -> None:
    shipped = read_catalogue(BUILT_IN_CATALOGUE)
    budget = PlanSelector(shipped, 15 * MIB, lambda _: 4)
    for one in [budget.default_plan(row.id) for row in shipped.models]:
        assert one.fits
        assert one.name != "all resident"
        assert one.peak_bytes <= 15 * MIB


def test_a_controlnet_from_a_hub_is_planned_with_as_assumed_until_it_is_here(catalogue: Catalogue) -> None:
    local = next(row for row in catalogue.controlnets if row.id == "flux-hint")
    away = local.model_copy(update={"source": "somebody/flux-hint"})
    others = tuple(row for row in catalogue.controlnets if row is not local)
    budget = PlanSelector(catalogue.model_copy(update={"controlnets": (away, *others)}), 2**40, lambda _: 4)
    assert not budget.is_measured("controlnet:flux-hint")
    job = make_job(catalogue, "flux", Mode.CONTROLNET)
    assert budget.knows(job.model)
    before = budget.choose(job, 1)
    budget.measure("controlnet:flux-hint", Path(local.source))
    assert budget.is_measured("controlnet:flux-hint")
    after = budget.choose(job, 1)
    assert after.placements["controlnet:flux-hint"] is Placement.DEVICE
    weights = [next(part for part in one.components if part.role == "controlnet") for one in (before, after)]
    assert [part.origin for part in weights] == ["assumed", "files"]
    assert 0 < weights[1].bytes < weights[0].bytes
    assert after.peak_bytes < before.peak_bytes


def test_a_model_from_a_hub_is_planned_by_its_files_and_others_learn_that(
    shipped: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = shipped.model("shapes-sdxl")
    away = local.model_copy(update={"source": "org/sdxl"})
    rows = shipped.model_copy(update={"models": (away,), "default_model": away.id})
    job = make_job(shipped, "sdxl")
    with serving() as hub:
        use_hub(monkeypatch, hub, tmp_path / "home")
        budget = PlanSelector(rows, 2**40, lambda _: 4)
        published = budget.choose(job, 1)
        budget.measure_on_hub(away)  # there is no such repository
        assert budget.choose(job, 1) == published
        hub.commit("org/sdxl", checkpoint())
        budget.measure_on_hub(away)
    on_hub = budget.choose(job, 1)
    assert budget.capacity.models[away.id].origin == "hub"
    assert not budget.is_measured(away.id)
    budget.measure(away.id, shipped.root / local.source)
    assert budget.is_measured(away.id)
    here = budget.choose(job, 1)
    assert budget.capacity.models[away.id].origin == "files"
    assert on_hub.peak_bytes == here.peak_bytes < published.peak_bytes / 100
    assert budget.capacity.plan("sdxl", job) == PlanSelector(shipped, 2**40, lambda _: 4).choose(job, 1)


def test_what_one_model_has_taught_does_not_bind_another_of_its_family(catalogue: Catalogue) -> None:
    first = next(row for row in catalogue.models if row.family == "sdxl")
    twin = first.model_copy(update={"id": "twin"})
    both = catalogue.model_copy(update={"models": (*catalogue.models, twin)})
    budget = PlanSelector(both, 2**40, lambda _: 4)
    job = make_job(both, "sdxl")
    other = job.model_copy(update={"model": "twin"})
    assert budget.knows(job.model)
    assert budget.knows("twin")
    before = budget.choose(other, 1)
    assert budget.step_down(job, 1) is not None
    assert budget.choose(job, 1).peak_bytes < before.peak_bytes
    assert budget.choose(other, 1) == before
