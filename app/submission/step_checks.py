"""The check of a single step of an image: the latents that it is made from. Stores nothing."""

from __future__ import annotations

from app.inputs.image import Inputs
from app.inputs.reader import InputReader
from contracts.catalogue.schedulers import SCHEDULERS
from contracts.errors import FieldProblem, InvalidRequest
from contracts.provenance.kept_latents import latents_problem, needed_steps, refusal, step_name
from contracts.requests.entries import StepCheck
from contracts.requests.entry_parameters import StepCheckParameters
from contracts.requests.parameters import JobParameters

_FIELD, _LATENTS = "check_step", "check_step.latents"


def with_step_check(
    check: StepCheck | None, parameters: JobParameters, inputs: InputReader
) -> tuple[JobParameters, Inputs]:
    """Return the parameters with the step that is to be made again, and the latents for it.

    Raises:
        InvalidRequest: this job's steps cannot be checked one by one, or it needs other latents.
        ImageTooLarge: the latents have more bytes than an image may have.
    """
    if check is None:
        return parameters, {}
    reason, most = refusal(parameters), 2 * parameters.num_inference_steps
    if reason is not None:
        raise InvalidRequest([FieldProblem(_FIELD, f"cannot be used here: {reason}")])
    if parameters.keep_latents:
        raise InvalidRequest([FieldProblem("keep_latents", f"has no effect with {_FIELD}; remove one of them")])
    if check.step > most:
        raise InvalidRequest([FieldProblem(f"{_FIELD}.step", f"the job has fewer steps than {check.step}", most)])
    needed = needed_steps(check.step, SCHEDULERS[parameters.scheduler].steps_before or 0)
    if not needed or check.latents is None:
        return _without_latents(check, parameters, needed), {}
    data = inputs.read_file(_LATENTS, check.latents)
    problem = latents_problem(data, needed, parameters.num_images)
    if problem is not None:
        raise InvalidRequest([FieldProblem(_LATENTS, problem)])
    stored = inputs.latents(data)
    made = StepCheckParameters(step=check.step, latents=stored.stored.key)
    return parameters.model_copy(update={_FIELD: made}), {_LATENTS: stored}


def _without_latents(check: StepCheck, parameters: JobParameters, needed: range) -> JobParameters:
    if needed:
        names = ", ".join(map(step_name, needed))
        raise InvalidRequest([FieldProblem(_LATENTS, f"step {check.step} is computed from the tensors {names}")])
    if check.latents is not None:
        message = f"step {check.step} is computed from noise and uses no latents; remove them"
        raise InvalidRequest([FieldProblem(_LATENTS, message)])
    return parameters.model_copy(update={_FIELD: StepCheckParameters(step=check.step)})
