"""How the prompts of one pipeline call's jobs are read: tokens for receipts, and jobs that cannot share the call.

Encodes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from contracts.catalogue.families import Family
from contracts.errors import FailureCode, JobFailed
from contracts.requests.parameters import JobParameters
from contracts.requests.prompt_counts import count_tokens
from contracts.requests.prompt_tokens import TokenUse
from worker.encoding.windows import tokenizers_of


class _Job(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def parameters(self) -> JobParameters: ...


_AnyJob = TypeVar("_AnyJob", bound=_Job)
_Result = TypeVar("_Result")


class UnequalPrompts(Exception):
    """Jobs of one call have prompts of unequally many windows, which no pipeline takes together."""

    def __init__(self, windows: Mapping[str, int]) -> None:
        """`windows`: job's id -> windows of its prompts."""
        super().__init__("the jobs' prompts have unequally many windows")
        self._windows = windows

    def in_groups(
        self, jobs: Sequence[_AnyJob], generate: Callable[[list[_AnyJob]], Sequence[_Result]]
    ) -> list[_Result]:
        """Generate those together that can share a call, and return the result of each job, in order."""
        counts = {job.id: self._windows.get(job.id, min(self._windows.values())) for job in jobs}
        results: dict[str, _Result] = {}
        for count in sorted(set(counts.values())):
            group = [job for job in jobs if counts[job.id] == count]
            results.update(zip((job.id for job in group), generate(group), strict=True))
        return [results[job.id] for job in jobs]


def require_equal(jobs: Sequence[_Job], windows: Sequence[int]) -> None:
    """Raise UnequalPrompts unless all images have as many windows; `windows` has a number for each image."""
    if len(set(windows)) > 1:
        ids = [job.id for job in jobs for _ in job.parameters.seeds]
        raise UnequalPrompts(dict(zip(ids, windows, strict=True)))


def token_counts(pipeline: Any, family: Family, job: JobParameters) -> dict[str, dict[str, TokenUse]]:
    """Return the receipt's fields about what each text encoder reads of a job's prompts.

    Raises:
        JobFailed: PROMPT_TOO_LONG: a prompt is longer than the job allows.
    """
    counts = count_tokens(family, job, tokenizers_of(pipeline, family))
    if counts.problems:
        problem = counts.problems[0]
        raise JobFailed(FailureCode.PROMPT_TOO_LONG, f"{problem.field} {problem.message}")
    found = {"prompt_tokens": counts.prompt, "negative_prompt_tokens": counts.negative or {}}
    return {
        name: {encoder: _read_by(pipeline, encoder, use) for encoder, use in uses.items()}
        for name, uses in found.items()
    }


def _read_by(pipeline: Any, encoder: str, use: TokenUse) -> TokenUse:
    """What an encoder reads; nothing where the memory plan skips it."""
    return use if getattr(pipeline, encoder) is not None else TokenUse(given=use.given, used=0)
