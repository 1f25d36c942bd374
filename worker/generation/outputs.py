"""From painted pictures to stored images: encode, write, and say what was written.

Needs no device, so the next batch may paint meanwhile. Knows no queue.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from contracts.errors import FailureCode, JobFailed, Unavailable
from contracts.queue.records import ImageRecord, Receipt
from contracts.storage import Storage
from worker.generation import images, receipts

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Generated:
    """A job whose pictures are done and not yet written.

    Attributes:
        receipt: complete but for the seconds of writing.
    """

    job_id: str
    attempt: int
    pictures: Sequence[Image.Image]
    receipt: Receipt


@dataclass(frozen=True)
class Stored:
    """A job whose images are in the storage, complete."""

    images: list[ImageRecord]
    receipt: Receipt


def store(painted: Generated, storage: Storage) -> Stored | JobFailed:
    """Write one job's images, complete before anyone is told of them."""
    begun = time.perf_counter()
    try:
        records = [_write(painted, index, storage) for index in range(len(painted.pictures))]
    except Unavailable as error:
        _log.exception("job %s: images not stored", painted.job_id)
        return JobFailed(FailureCode.INTERNAL, str(error))
    timings = {**painted.receipt.timings, "write": round(time.perf_counter() - begun, 4)}
    return Stored(records, painted.receipt.model_copy(update={"timings": timings}))


def _write(painted: Generated, index: int, storage: Storage) -> ImageRecord:
    parameters, picture = painted.receipt.parameters, painted.pictures[index]
    seed, file_format = parameters.seeds[index], parameters.output_format
    said = receipts.texts(painted.receipt, seed)
    data = images.encode(picture, file_format, parameters.output_quality, said)
    key = f"images/{painted.job_id}/{painted.attempt}/{index}.{file_format}"
    storage.write(key, data)
    return ImageRecord(
        key=key,
        width=picture.width,
        height=picture.height,
        seed=seed,
        format=file_format,
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
    )
