"""Every scheduler works in every mode of its kind of model, with the checkpoint's configuration."""

from __future__ import annotations

import inspect
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import FAMILIES, Mode
from contracts.catalogue.schedulers import MODEL_SETTINGS, SCHEDULERS
from contracts.errors import InvalidRequest
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.storage import Storage
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from tests.support.combinations import ALL, covering
from tests.support.jobs import (
    RecordingWatch,
    fail_job,
    generate_pixels,
    make_job,
    model_of,
    run_jobs,
)
from tests.support.trained import TRAINED_FAMILIES
from worker.pool.pool import Pool
from worker.sampling.schedulers import make_scheduler

#: They add noise at each step (TCD's class, unless a pipeline forbids it): their images differ from the others'.
STOCHASTIC = {"euler_a", "lcm", "tcd", "dpmpp_2m_sde"}
#: It begins later than the shapes models were trained to.
TRAILING = {"euler_trailing"}
SHORT = [
    (family.id, mode, row.id)
    for family in TRAINED_FAMILIES.values()
    for mode in (Mode.IMG2IMG, Mode.INPAINT, Mode.CONTROLNET)
    for row in SCHEDULERS.values()
    if row.kind == family.kind
]
LONG = [
    (family.id, row.id)
    for family in TRAINED_FAMILIES.values()
    for row in SCHEDULERS.values()
    if row.kind == family.kind and row.id not in STOCHASTIC | TRAILING
]


@pytest.mark.parametrize(("family", "mode", "scheduler"), covering(SHORT))
def test_one_step_is_enough_for_every_scheduler_from_an_image_or_a_control(
    family: str, mode: Mode, scheduler: str, catalogue: Catalogue, pool: Pool, storage: Storage
) -> None:
    fields = {"num_inference_steps": 1} if mode is Mode.CONTROLNET else {"strength": 0.5}
    image = generate_pixels(make_job(catalogue, family, mode, scheduler=scheduler, **fields), pool, storage)
    assert image.std() > 1


@pytest.mark.parametrize(
    ("family", "scheduler", "steps"),
    [(*row, 30) for row in LONG] if ALL else [("sdxl", "ddim", 12), ("flux", "flow_unipc", 12)],
)
def test_deterministic_schedulers_agree_after_many_steps(
    family: str, scheduler: str, steps: int, trained: Catalogue, trained_pool: Pool, storage: Storage
) -> None:
    usual, other = (
        generate_pixels(
            make_job(trained, family, num_inference_steps=steps, scheduler=name), trained_pool, storage
        )
        for name in (None, scheduler)
    )
    assert np.abs(other - usual).mean() < 4


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


def _values(scheduler: Any) -> dict[str, Any]:
    """All that a scheduler holds, its tensors as numbers."""
    return {
        name: value.tolist() if isinstance(value, torch.Tensor | np.ndarray) else str(value)
        for name, value in vars(scheduler).items()
    }


@pytest.mark.parametrize("family", ["sdxl", "flux"])  # one of each kind
def test_a_jobs_scheduler_shares_no_state_with_the_next_jobs(
    family: str, catalogue: Catalogue, pool: Pool
) -> None:
    model = pool.model(model_of(catalogue, family))
    for row in SCHEDULERS.values():
        if row.kind == FAMILIES[family].kind:
            used, untouched = (model.pipeline(Mode.TXT2IMG, row.id).scheduler for _ in range(2))
            before = _values(untouched)
            used.set_timesteps(3, **({"mu": 0.5} if used.config.get("use_dynamic_shifting") else {}))
            used.timesteps.zero_()
            assert _values(untouched) == before == _values(model.pipeline(Mode.TXT2IMG, row.id).scheduler)
            assert dict(untouched.config) == dict(used.config)


def test_the_flow_solvers_of_diffusers_lack_what_flow_pipelines_call() -> None:
    """Upstream behaviour that `make_scheduler` works round (diffusers 0.42)."""
    for name in {row.class_name for row in SCHEDULERS.values() if row.kind == "flow"}:
        solver = getattr(diffusers, name)
        is_complete = name == "FlowMatchEulerDiscreteScheduler"
        assert hasattr(solver, "scale_noise") == is_complete
    assert "sigmas" not in inspect.signature(diffusers.DPMSolverMultistepScheduler.set_timesteps).parameters


def test_the_table_says_which_settings_of_a_checkpoint_each_class_of_diffusers_lacks() -> None:
    for row in SCHEDULERS.values():
        known = inspect.signature(getattr(diffusers, row.class_name).__init__).parameters
        missing = set(MODEL_SETTINGS[row.kind]).difference(known)
        assert missing <= set(row.lacks) <= set(MODEL_SETTINGS[row.kind])
        assert row.kind == "flow" or set(row.lacks) == missing, row.id


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if SCHEDULERS[name].kind == "diffusion"])
def test_zero_terminal_snr_and_velocity_are_followed_to_the_bit_or_refused(name: str) -> None:
    """heun and pndm ended in another image without a word."""
    checkpoint = diffusers.EulerDiscreteScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    row = SCHEDULERS[name]
    if name in ("heun", "pndm"):
        with pytest.raises(
            JobFailed, match=rf"scheduler {name} does not follow .*rescale_betas_zero_snr.*use euler"
        ):
            make_scheduler(name, checkpoint.config)
        return
    ours = make_scheduler(name, checkpoint.config)
    options = {"clip_sample": False} if "clip_sample" in ours.config else {}
    theirs = getattr(diffusers, row.class_name).from_config(checkpoint.config, **options, **row.options)
    generator = torch.Generator().manual_seed(0)
    latents, output = (torch.randn(1, 4, 8, 8, generator=generator) for _ in range(2))
    results = []
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(4)
        noise = {"generator": torch.Generator().manual_seed(1)} if name in STOCHASTIC else {}
        timestep = scheduler.timesteps[0]
        scaled = scheduler.scale_model_input(latents * scheduler.init_noise_sigma, timestep)
        results.append((scaled, scheduler.step(output, timestep, latents * 3, return_dict=False, **noise)[0]))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("name", ["ddim", "lcm", "heun"])
def test_latents_are_not_clipped_unless_the_checkpoint_says_so(name: str) -> None:
    """diffusers' DDIM and LCM clip to ±1 where the checkpoint's own scheduler has no word for it."""
    silent = {"_class_name": "EulerDiscreteScheduler", "prediction_type": "epsilon"}
    assert make_scheduler(name, silent).config.clip_sample is False
    assert make_scheduler(name, {**silent, "clip_sample": True}).config.clip_sample is True


@pytest.mark.parametrize("name", ["flow_euler", "flow_unipc", "flow_dpmpp_2m"])
def test_a_flow_checkpoints_shift_is_kept_whatever_its_own_scheduler_calls_it(name: str) -> None:
    """Pipelines read the bounds of the dynamic shift from the scheduler, which the solvers do not know."""
    config = make_scheduler(name, {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True,
                                   "flow_shift": 3.0, "max_shift": 0.9, "base_shift": 0.3}).config  # fmt: skip
    assert config.get("shift", config.get("flow_shift")) == 3.0
    assert (config["max_shift"], config["base_shift"]) == (0.9, 0.3)


def test_a_spread_of_the_row_replaces_the_checkpoints() -> None:
    checkpoint = {"_class_name": "EulerDiscreteScheduler", "use_exponential_sigmas": True}
    assert make_scheduler("euler_karras", checkpoint).config.use_exponential_sigmas is False
    assert make_scheduler("euler", checkpoint).config.use_exponential_sigmas is True


def test_a_configuration_that_diffusers_refuses_is_a_load_failure_with_the_reason() -> None:
    with pytest.raises(JobFailed, match=r"scheduler euler refuses .*scheduler_config.json: nonsense"):
        make_scheduler("euler", {"_class_name": "EulerDiscreteScheduler", "beta_schedule": "nonsense"})


@pytest.fixture(scope="module")
def edm(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SDXL checkpoint as one that was trained along a continuous range of noise levels."""
    folder = tmp_path_factory.mktemp("edm") / "sdxl"
    shutil.copytree(catalogue.root / "shapes-sdxl", folder)
    diffusers.EDMDPMSolverMultistepScheduler(sigma_max=14.0).save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "EDMDPMSolverMultistepScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_an_edm_checkpoint_runs_with_its_own_schedulers_as_in_diffusers_and_with_no_other(
    edm: Path, catalogue: Catalogue, storage: Storage
) -> None:
    row = catalogue.model("shapes-sdxl").model_copy(update={"source": str(edm)})
    limited = with_checkpoint_limits(catalogue.model_copy(update={"models": (row,), "default_model": row.id}))
    assert limited.model(row.id).schedulers == ["edm_euler", "edm_dpmpp_2m"]
    with pytest.raises(InvalidRequest, match=r"euler cannot follow .* EDMDPMSolverMultistepScheduler"):
        make_job(limited, "sdxl", scheduler="euler")
    pool = Pool(limited, device="cpu")
    bare = diffusers.StableDiffusionXLPipeline.from_pretrained(edm, dtype=torch.float32)
    bare.set_progress_bar_config(disable=True)
    for name, class_name in (
        ("edm_euler", "EDMEulerScheduler"),
        ("edm_dpmpp_2m", "EDMDPMSolverMultistepScheduler"),
    ):
        job = make_job(limited, "sdxl", guidance_scale=3.0, scheduler=name)
        ours = generate_pixels(job, pool, storage)
        bare.scheduler = getattr(diffusers, class_name).from_config(bare.scheduler.config)
        theirs = bare(
            "a red circle", width=64, height=64, num_inference_steps=2, guidance_scale=3.0,
            generator=torch.Generator().manual_seed(7), output_type="np",
        ).images[0]  # fmt: skip
        assert np.array_equal(ours, (theirs * 255).round().astype("uint8"))
    watch = RecordingWatch()
    run_jobs(make_job(limited, "sdxl", num_inference_steps=2, previews=1), pool, storage, watch)
    assert watch.previews
    for mode in (Mode.IMG2IMG, Mode.INPAINT, Mode.CONTROLNET):
        assert generate_pixels(make_job(limited, "sdxl", mode, num_inference_steps=2), pool, storage).std() > 1


def test_an_edm_checkpoint_whose_limits_are_not_known_is_refused_by_the_worker(
    edm: Path, catalogue: Catalogue, storage: Storage
) -> None:
    row = catalogue.model("shapes-sdxl").model_copy(update={"source": str(edm)})
    pool = Pool(catalogue.model_copy(update={"models": (row,), "default_model": row.id}), device="cpu")
    error = fail_job(make_job(pool.catalogue, "sdxl"), pool, storage)
    assert (error.code, error.retryable) == (FailureCode.MODEL_LOAD_FAILED, False)
    assert "use edm_euler, edm_dpmpp_2m" in error.message
