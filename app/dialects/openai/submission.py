"""Submits OpenAI Images requests as jobs. Knows neither routes nor batches, and answers nothing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import Response

from app.dialects.field_names import named_as_sent
from app.dialects.openai.requests import draft_request, foreign_name
from app.parsing.requests import Reading
from app.submission.checks import JobDraft
from app.submission.submit import Submission
from contracts.jobs.records import JobRecord


def accept_images(
    submission: Submission, reading: Reading[Any], body: bytes, files: Mapping[str, bytes], response: Response
) -> JobRecord:
    """Submit a request, or find the job that the same call has made; errors name the fields as they were sent.

    Args:
        body: what identifies the call.
        files: the images of a form, by field.

    Raises:
        DarkroomError: as `Submission.accept` says.
    """

    def draft() -> JobDraft:
        catalogue, inputs = submission.services.catalogue, submission.checks.inputs
        return JobDraft(*draft_request(reading, catalogue, inputs, files))

    with named_as_sent(partial(foreign_name, reading.requests[0])):
        return submission.accept(body, draft, response)
