"""How a job's prompts are read: what each text encoder is given of them, for the receipt. Encodes nothing."""

from __future__ import annotations

from typing import Any

from contracts.catalogue.families import Family
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.prompts.tokens import TokenUse
from contracts.requests.parameters import JobParameters
from contracts.requests.prompts.counts import count_tokens
from worker.encoding.windows import tokenizers_of


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
