"""Jobs in log lines: their ids and those of their requests, and never their prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from contracts.jobs.records import JobRecord
from contracts.logs import bound, hide


@contextmanager
def job_context(jobs: Sequence[JobRecord]) -> Iterator[None]:
    """Add the ids of the jobs and their requests to log lines in the block, and keep their prompts out of them."""
    requests = dict.fromkeys(job.request_id for job in jobs if job.request_id)
    traces = dict.fromkeys(context.trace_id for job in jobs if (context := job.trace_context) is not None)
    trace = {"trace_id": ",".join(traces)} if traces else {}
    with bound(job_id=",".join(job.id for job in jobs), request_id=",".join(requests), **trace):
        for job in jobs:
            hide(*job.parameters.private_texts)
        yield
