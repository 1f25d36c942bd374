"""Makes a scheduler from its public name and the checkpoint's own configuration, a new object for every job."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

import diffusers

from contracts.catalogue.schedulers import SCHEDULERS
from worker.sampling.host_timesteps import without_waits


def make_scheduler(name: str, checkpoint_config: Mapping[str, Any]) -> Any:
    """Return the scheduler with the checkpoint's training configuration, then the options of its row.

    Only entries that the class knows are passed: diffusers warns of others with every job.
    """
    spec = SCHEDULERS[name]
    scheduler_class = getattr(diffusers, spec.class_name)
    options = dict(spec.options)
    if spec.kind == "flow" and not hasattr(scheduler_class, "scale_noise"):
        scheduler_class = _flow_solver(scheduler_class)
        options.setdefault("flow_shift", checkpoint_config.get("shift", 1.0))
    scheduler_class = without_waits(scheduler_class)
    known = inspect.signature(scheduler_class.__init__).parameters
    config = {key: value for key, value in checkpoint_config.items() if key in known or key.startswith("_")}
    return scheduler_class.from_config(config, **options)


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
