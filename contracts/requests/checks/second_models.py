"""The second models that a request may name as `refiner` or `cascade`: which exist, and what fits both models.

Part of the checks in `validation.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.catalogue.schedulers import SCHEDULERS, mismatch
from contracts.errors import FieldProblem, NotFound
from contracts.requests.checks.step_rules import StepRules
from contracts.requests.defaults import request_mode
from contracts.requests.parameters import JobParameters
from contracts.requests.schema import JobRequest

#: Fields that name a second model.
Kind = Literal["refiner", "cascade"]
KINDS: tuple[Kind, ...] = ("refiner", "cascade")


def second_models(kind: Kind, model: ModelSpec, catalogue: Catalogue) -> list[ModelSpec]:
    """Return the models that a request for this one may name in this field."""
    wanted = model.family_spec.later_models
    if not wanted or not any(kind in fields for fields in model.family_spec.modes.values()):
        return []
    return [row for row in catalogue.models if row.family_spec.id == wanted]


def with_second_model(parameters: JobParameters, catalogue: Catalogue) -> JobParameters:
    """Return a job's parameters with the id of its second model in place of one of its other names."""
    for kind in KINDS:
        second = getattr(parameters, kind)
        if second is not None:
            named = second.model_copy(update={"model": catalogue.model(second.model).id})
            parameters = parameters.model_copy(update={kind: named})
    return parameters


def find_second_model(
    kind: Kind, request: JobRequest, model: ModelSpec, catalogue: Catalogue
) -> ModelSpec | FieldProblem | None:
    """Return the row of the model that a request names in this field, or what is wrong with the name.

    Returns:
        None where the field is missing, or refused elsewhere.
    """
    second = getattr(request, kind)
    if second is None or kind not in model.family_spec.modes.get(request_mode(request), frozenset()):
        return None
    known = [row.id for row in second_models(kind, model, catalogue)]
    try:
        row = catalogue.model(second.model)
    except NotFound:
        return FieldProblem(f"{kind}.model", f"unknown model {second.model[:80]!r}", known)
    if row.id not in known:
        return FieldProblem(f"{kind}.model", f"{row.id} is not a {kind} for {model.id}", known)
    return row


def both_model_problems(kind: Kind, model: ModelSpec, row: ModelSpec, rules: StepRules) -> Iterator[FieldProblem]:
    """Yield what of the request acts on both models, and cannot on the second one, `row`."""
    spec = SCHEDULERS.get(rules.scheduler)
    if spec is not None and spec.id in model.schedulers and spec.id not in row.schedulers:
        reason = mismatch(spec, row.scheduler_config) or "does not work with it"
        both = [name for name in model.schedulers if name in row.schedulers]
        yield FieldProblem("scheduler", f"{spec.id} {reason} ({row.id}, the {kind})", both)
    if rules.speed == "fast":
        yield FieldProblem("speed", f"fast cannot be used together with {kind}; remove one of them", "exact")
