"""Makes a scheduler from its public name and the checkpoint's own configuration, a new object for every job."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

import diffusers

from contracts.catalogue.schedulers import SCHEDULERS, mismatch
from contracts.errors import first_line
from contracts.jobs.failures import FailureCode, JobFailed
from worker.sampling.host_timesteps import without_waits

#: Settings of a flow model that pipelines read from the scheduler, whether its class knows them or not.
_READ_BY_PIPELINES = ("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len")


def make_scheduler(name: str, checkpoint_config: Mapping[str, Any]) -> Any:
    """Return the scheduler with the checkpoint's training configuration, then the options of its row.

    Only entries that the class knows are passed: diffusers warns of others with every job.

    Raises:
        JobFailed: with MODEL_LOAD_FAILED; it would drop a setting that the checkpoint was trained with.
    """
    spec = SCHEDULERS[name]
    reason = mismatch(spec, checkpoint_config)
    if reason is not None:
        fitting = [row.id for row in SCHEDULERS.values() if mismatch(row, checkpoint_config) is None]
        remedy = f"use {', '.join(fitting)}" if fitting else "no scheduler here does"
        raise JobFailed(FailureCode.MODEL_LOAD_FAILED, f"scheduler {name} {reason}; {remedy}")
    scheduler_class = getattr(diffusers, spec.class_name)
    config = dict(checkpoint_config)
    if spec.kind == "flow":
        scheduler_class = _with_flow_interface(scheduler_class, config)
    else:
        # diffusers' DDIM and LCM clip unless told otherwise, which is for models of pixels, not of latents.
        config.setdefault("clip_sample", False)
    if "use_karras_sigmas" in spec.options:
        config |= {"use_exponential_sigmas": False, "use_beta_sigmas": False}  # one of the three at a time
    known = inspect.signature(without_waits(scheduler_class).__init__).parameters
    entries = {key: value for key, value in config.items() if key in known or key.startswith("_")}
    try:
        scheduler = without_waits(scheduler_class).from_config(entries, **spec.options)
    except (ValueError, NotImplementedError) as error:
        message = f"scheduler {name} refuses the checkpoint's scheduler_config.json: {first_line(error)}"
        raise JobFailed(FailureCode.MODEL_LOAD_FAILED, message) from error
    read = {key: config[key] for key in _READ_BY_PIPELINES if key in config and key not in known}
    if read:
        scheduler.register_to_config(**read)
    return scheduler


def _with_flow_interface(scheduler_class: Any, config: dict[str, Any]) -> Any:
    """The class with what flow pipelines call; names the shift in `config` as that class does."""
    shift = config.get("shift", config.get("flow_shift", 1.0))
    if hasattr(scheduler_class, "scale_noise"):
        config["shift"] = shift
        return scheduler_class
    config["flow_shift"] = shift
    return _flow_solver(scheduler_class)


class _FlowMatchInterface:
    """Methods of `FlowMatchEulerDiscreteScheduler` that flow pipelines call, for solvers that lack them.

    In diffusers 0.42, `DPMSolverMultistepScheduler` and `UniPCMultistepScheduler` can solve flow models, but have
    no `scale_noise`, and their `set_timesteps` do not take `sigmas` and `mu` as the pipelines pass them
    (`test_the_flow_solvers_of_diffusers_lack_what_flow_pipelines_call`).
    """

    config: Any

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
    ) -> None:
        """Spread the steps by the solver's own flow sigmas; of `sigmas` only the number is used."""
        steps = len(sigmas) if num_inference_steps is None else num_inference_steps
        shift = {"mu": mu} if self.config.use_dynamic_shifting else {}
        super().set_timesteps(steps, device=device, **shift)  # type: ignore[misc]

    def scale_noise(self, sample: Any, timestep: Any, noise: Any) -> Any:
        """Return the sample with the noise of the timestep."""
        return self.add_noise(sample, noise, timestep)  # type: ignore[attr-defined]


@cache
def _flow_solver(solver: type) -> Any:
    return type(f"Flow{solver.__name__}", (_FlowMatchInterface, solver), {})
