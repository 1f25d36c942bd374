"""The function that RQ's record of a job names. Imports nothing: a stock `rq worker` may load it anywhere."""

from __future__ import annotations

from typing import NoReturn


def run_job(job_id: str) -> NoReturn:
    """Refuse: only a Darkroom worker runs jobs; it claims them itself and calls no function by name.

    Raises:
        RuntimeError: always. The job goes back to its queue when a Darkroom worker next reaps.
    """
    raise RuntimeError(
        f"job {job_id} must be run by a Darkroom worker (python -m worker), not by a stock rq worker; "
        "the job goes back to its queue"
    )
