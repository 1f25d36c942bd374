"""What came of one job, and the storing of its images: encode, write, record what was written.

Needs no device, so the next jobs can be generated meanwhile. Knows no queue.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from contracts.errors import FailureCode, JobFailed
from contracts.jobs.receipt import Receipt
from contracts.jobs.records import ImageRecord, JobError, Measured
from worker.generation import receipts

#: A JPEG segment has 64 KiB, including its headers.
_JPEG_EXIF_BYTES = 65_000


class ImageWriter(Protocol):
    """What image files are written to: a storage, or something that repeats what a storage refuses."""

    def write(self, key: str, data: bytes) -> None:
        """Store bytes atomically; raises Unavailable."""


Status = Literal["generated", "completed", "failed", "cancelled", "released", "device_failed", "lost"]


@dataclass(frozen=True)
class JobResult:
    """The result of one attempt at a job.

    Attributes:
        status: `generated`: images in memory; `completed`: images stored; `failed`; `cancelled`; `released`: the
            job goes back to its queue; `device_failed`: so does it, since the worker's device failed; `lost`:
            another worker owns it, nothing may be written.
        images: the generated images; empty unless `generated`.
        stored: the stored images, in the same order; empty unless `completed`.
        receipt: of a `generated` or `completed` job; the seconds of writing are added by `store`.
        error: why it `failed`.
        measured: what it cost; None unless `generated` or `completed`.
    """

    status: Status
    images: Sequence[Image.Image] = ()
    stored: Sequence[ImageRecord] = ()
    receipt: Receipt | None = None
    error: JobError | None = None
    measured: Measured | None = None

    @property
    def denoise_seconds(self) -> float | None:
        """Worker time of the job's own denoising; None unless `generated` or `completed`."""
        return None if self.measured is None else self.measured.denoise_seconds

    @classmethod
    def failed(cls, code: FailureCode, message: str) -> JobResult:
        """A failure, in words for the client."""
        return cls("failed", error=JobError.of(code, message))


def store(result: JobResult, job_id: str, attempt: int, storage: ImageWriter) -> JobResult:
    """Write a generated job's images under `images/JOB_ID/ATTEMPT/`.

    Returns:
        A `completed` result.

    Raises:
        Unavailable: the storage did not take the images; some may be stored.
        JobFailed: an image cannot be encoded; some may be stored.
    """
    if result.receipt is None:
        raise ValueError(f"job {job_id} is {result.status}: it has no images to store")
    started = time.perf_counter()
    folder = f"images/{job_id}/{attempt}"
    stored = [_write(image, index, result.receipt, folder, storage) for index, image in enumerate(result.images)]
    timings = {**result.receipt.timings, "write": round(time.perf_counter() - started, 4)}
    receipt = result.receipt.model_copy(update={"timings": timings})
    return replace(result, status="completed", images=(), stored=stored, receipt=receipt)


def _write(image: Image.Image, index: int, receipt: Receipt, folder: str, storage: ImageWriter) -> ImageRecord:
    parameters, seed = receipt.parameters, receipt.parameters.seeds[index]
    metadata = receipts.file_metadata(receipt, seed)
    try:
        data = encode_image(image, parameters.output_format, parameters.output_quality, metadata)
    except Exception as error:  # libraries raise many types, and one job's image must not end the process
        message = f"the image could not be encoded as {parameters.output_format} ({type(error).__name__})"
        raise JobFailed(FailureCode.INTERNAL, f"{message}; ask for another output_format") from error
    key = f"{folder}/{index}.{parameters.output_format}"
    storage.write(key, data)
    return ImageRecord(
        key=key,
        width=image.width,
        height=image.height,
        seed=seed,
        format=parameters.output_format,
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
    )


def encode_image(image: Image.Image, file_format: str, quality: int, metadata: Mapping[str, str]) -> bytes:
    """Encode an image file with `metadata["darkroom"]` (JSON) and `metadata["parameters"]` (A1111's line) inside.

    PNG has them as text chunks; JPEG and WebP as EXIF ImageDescription and UserComment. A JPEG has room for
    64 KiB of EXIF: with very long prompts it lacks the second, then both. The same arguments give the same bytes.
    """
    options: dict[str, object] = {}
    if file_format == "png":
        chunks = PngInfo()
        for name, text in metadata.items():
            chunks.add_text(name, text)
        options = {"pnginfo": chunks}
    else:
        max_bytes = _JPEG_EXIF_BYTES if file_format == "jpeg" else None
        options = {"quality": quality, "exif": _exif(metadata, max_bytes)}
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def _exif(metadata: Mapping[str, str], max_bytes: int | None) -> bytes:
    """Return EXIF with as much of the metadata as fits."""
    for names in (("darkroom", "parameters"), ("darkroom",), ()):
        exif = Image.Exif()
        if "darkroom" in names:
            exif[ExifTags.Base.ImageDescription] = metadata["darkroom"]
        if "parameters" in names:
            comment = b"UNICODE\0" + metadata["parameters"].encode("utf-16-be")
            exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
        data = exif.tobytes()
        if max_bytes is None or len(data) <= max_bytes:
            break
    return data
