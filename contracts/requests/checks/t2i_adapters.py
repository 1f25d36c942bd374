"""Whether a job's images have the size that its T2I-Adapters need. Knows no images."""

from __future__ import annotations

from collections.abc import Iterator

from contracts.catalogue.catalogue import Catalogue
from contracts.errors import FieldProblem, InvalidRequest
from contracts.requests.parameters import JobParameters


def require_t2i_size(job: JobParameters, catalogue: Catalogue) -> None:
    """Check the size of a job whose controls passed `validation.check`; raises InvalidRequest."""
    problems = list(_problems(job, catalogue))
    if problems:
        raise InvalidRequest(problems)


def _problems(job: JobParameters, catalogue: Catalogue) -> Iterator[FieldProblem]:
    rows = [catalogue.controlnet(control.controlnet) for control in job.controls if control.key is None]
    adapter = next((row for row in rows if row.is_t2i_adapter), None)
    multiple = None if adapter is None else adapter.family_spec.t2i_multiple
    if adapter is None or multiple is None:
        return
    for field, side in (("width", job.width), ("height", job.height)):
        if side % multiple:
            lower = side - side % multiple
            nearest = [one for one in (lower, lower + multiple) if one]
            message = (
                f"must be a multiple of {multiple} with the T2I-Adapter {adapter.id}, got {side} (nearest: "
                f"{', '.join(map(str, nearest))}); set width and height"
            )
            yield FieldProblem(field, message, nearest)
