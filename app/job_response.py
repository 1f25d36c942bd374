"""A job as clients see it now: its record, its position in the queue, and its images where they come as base64."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import suppress

from contracts.errors import NotFound, Unavailable
from contracts.jobs.records import ImageRecord, JobRecord, JobState, Position
from contracts.queue.client import JobQueue
from contracts.storage import Storage
from contracts.views.job import JobView, view_estimate, view_job
from contracts.views.links import Links

#: How old a forecast may be that an event shows: many streams may follow many jobs of many steps a second.
_EVENT_SECONDS = 1.0


def job_response(
    record: JobRecord, queue: JobQueue, storage: Storage, links: Links, *, is_new: bool = False
) -> JobView:
    """Describe a job for its owner. The position is left out when Redis does not answer in the meantime.

    Args:
        is_new: it was queued just now.
    """
    position = _position_of(queue, record, is_new)
    return view_job(record, links, position=position, encoded=encoded_images(record, storage))


def encoded_images(record: JobRecord, storage: Storage) -> Sequence[str | None]:
    """Base64 of each image of a completed job that was asked for it, None for a file that has expired."""
    is_base64 = record.response_format == "b64_json" and record.state is JobState.COMPLETED
    return [_read_base64(storage, image) for image in record.images] if is_base64 else ()


def estimate_end(record: JobRecord, queue: JobQueue) -> dict[str, object]:
    """What is expected now of the end of a job that runs, as its progress says it.

    Made once a second for all who ask.
    """
    with suppress(Unavailable):
        return view_estimate(queue.eta.position(record, _EVENT_SECONDS))
    return {}


def _position_of(queue: JobQueue, record: JobRecord, is_new: bool) -> Position | None:
    with suppress(Unavailable):
        return queue.eta.position(record, is_new=is_new)
    return None


def _read_base64(storage: Storage, image: ImageRecord) -> str | None:
    try:
        return base64.b64encode(storage.read(image.key)).decode("ascii")
    except NotFound:  # the image has just expired; the job can still be shown
        return None
