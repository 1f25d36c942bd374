"""Every scheduler works in every mode of its kind of model, with the checkpoint's configuration."""

from __future__ import annotations

import inspect
import logging

import diffusers
import numpy as np
import pytest

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import FAMILIES, Mode
from contracts.catalogue.schedulers import SCHEDULERS
from contracts.errors import InvalidRequest
from contracts.storage import Storage
from tests.support.jobs import generate_pixels, make_job, model_of
from worker.pool.pool import Pool
from worker.sampling.schedulers import make_scheduler

#: They add noise at each step, so their images differ from the others'.
STOCHASTIC = {"euler_a", "lcm", "dpmpp_2m_sde"}
SHORT = [
    (family.id, mode, row.id)
    for family in FAMILIES.values()
    for mode in (Mode.IMG2IMG, Mode.INPAINT, Mode.CONTROLNET)
    for row in SCHEDULERS.values()
    if row.kind == family.kind
]
LONG = [
    (family.id, row.id)
    for family in FAMILIES.values()
    for row in SCHEDULERS.values()
    if row.kind == family.kind and row.id not in STOCHASTIC
]


@pytest.mark.parametrize(("family", "mode", "scheduler"), SHORT)
def test_every_scheduler_runs_in_modes_that_start_from_an_image_or_a_control(
    family: str, mode: Mode, scheduler: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    fields = {"num_inference_steps": 2} if mode is Mode.CONTROLNET else {"strength": 0.5}
    image = generate_pixels(make_job(catalogue, family, mode, scheduler=scheduler, **fields), pool, storage)
    assert image.std() > 1


@pytest.mark.parametrize(("family", "scheduler"), LONG)
def test_deterministic_schedulers_agree_after_many_steps(
    family: str, scheduler: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    """A wrong prediction type, shift or sigma would give another image."""
    default = generate_pixels(make_job(catalogue, family, num_inference_steps=30), pool, storage)
    other = generate_pixels(
        make_job(catalogue, family, num_inference_steps=30, scheduler=scheduler), pool, storage
    )
    assert np.abs(other - default).mean() < 4


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_one_step_is_enough_for_every_scheduler(
    scheduler: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    family = "sdxl" if SCHEDULERS[scheduler].kind == "diffusion" else "flux"
    generate_pixels(make_job(catalogue, family, num_inference_steps=1, scheduler=scheduler), pool, storage)


def test_lcm_refuses_more_steps_than_it_was_distilled_on(catalogue: Catalogue) -> None:
    with pytest.raises(InvalidRequest, match="must be at most 50 with scheduler"):
        make_job(catalogue, "sdxl", scheduler="lcm", num_inference_steps=51)


def test_a_scheduler_keeps_the_checkpoints_prediction_type_and_shift() -> None:
    v_prediction = diffusers.EulerDiscreteScheduler(prediction_type="v_prediction", beta_end=0.012)
    for row in SCHEDULERS.values():
        if row.kind == "diffusion":
            config = make_scheduler(row.id, v_prediction.config).config
            assert config.prediction_type == "v_prediction"
            assert config.beta_end == 0.012
    shifted = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    assert make_scheduler("flow_euler", shifted.config).config.shift == 3.0
    assert make_scheduler("flow_unipc", shifted.config).config.flow_shift == 3.0
    assert make_scheduler("flow_dpmpp_2m", shifted.config).config.flow_shift == 3.0


def test_making_a_scheduler_logs_nothing(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    """diffusers would warn of every entry that only another class knows, for every job."""
    logger = logging.getLogger("diffusers.configuration_utils")
    logger.addHandler(caplog.handler)
    for model in (pool.model("shapes-sdxl"), pool.model("shapes-flux")):
        for name in model.spec.schedulers:
            model.pipeline(Mode.TXT2IMG, name)
    logger.removeHandler(caplog.handler)
    assert caplog.messages == []


def test_every_pipeline_has_its_own_scheduler(pool: Pool) -> None:
    model = pool.model("shapes-sdxl")
    first, second = (model.pipeline(Mode.TXT2IMG, "euler").scheduler for _ in range(2))
    assert first is not second
    assert first is not model.base.scheduler


@pytest.mark.parametrize("family", FAMILIES)
def test_a_jobs_scheduler_shares_no_state_with_the_next_jobs(
    family: str, catalogue: Catalogue, pool: Pool
) -> None:
    model = pool.model(model_of(catalogue, family))
    for row in SCHEDULERS.values():
        if row.kind == FAMILIES[family].kind:
            used, untouched = (model.pipeline(Mode.TXT2IMG, row.id).scheduler for _ in range(2))
            before = str(vars(untouched))
            used.set_timesteps(3, **({"mu": 0.5} if used.config.get("use_dynamic_shifting") else {}))
            used.timesteps.zero_()
            assert str(vars(untouched)) == before == str(vars(model.pipeline(Mode.TXT2IMG, row.id).scheduler))
            assert dict(untouched.config) == dict(used.config)


def test_the_flow_solvers_of_diffusers_lack_what_flow_pipelines_call() -> None:
    """Upstream behaviour that `make_scheduler` works round (diffusers 0.42)."""
    for name in {row.class_name for row in SCHEDULERS.values() if row.kind == "flow"}:
        solver = getattr(diffusers, name)
        is_complete = name == "FlowMatchEulerDiscreteScheduler"
        assert hasattr(solver, "scale_noise") == is_complete
    assert "sigmas" not in inspect.signature(diffusers.DPMSolverMultistepScheduler.set_timesteps).parameters
