"""The result of one job, and the storing of its images: encode, write, record what was written.

Needs no device, so the next jobs can be generated meanwhile. Knows no queue.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save

from contracts.errors import NotFound, Unavailable
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.jobs.image_safety import ImageSafety
from contracts.jobs.receipt import KeptLatents, Receipt
from contracts.jobs.records import ImageRecord, JobError, Measured
from contracts.provenance.image_data import hash_image_data
from contracts.provenance.kept_latents import latents_key, step_name
from contracts.provenance.manifest import iptc_xmp
from contracts.provenance.pixels import hash_pixels
from contracts.provenance.receipts.claims import SIGNATURE, make_claims
from contracts.provenance.receipts.merkle import merkle_root
from contracts.requests.parameters import JobParameters
from worker.generation.inputs import flatten
from worker.generation.results import receipts
from worker.runtime.out_of_memory import is_out_of_memory

if TYPE_CHECKING:  # their packages are an extra
    from contracts.provenance.credentials import ContentCredentials
    from contracts.provenance.receipts.signatures import ReceiptSigner

#: A JPEG segment has 64 KiB, including its headers.
_JPEG_EXIF_BYTES = 65_000
#: Placeholder for a hash that is not known yet.
_UNKNOWN = "0" * 64


class ImageWriter(Protocol):
    """Destination of image files: a storage, or something that repeats what a storage refuses."""

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
        safety: what the safety check found of each image; empty where images are not checked.
        step_hashes: of each image, the hashes of its latents after each step; empty where receipts are not signed.
        latents: after each step, (images, …); empty unless the job keeps them.
    """

    status: Status
    images: Sequence[Image.Image] = ()
    stored: Sequence[ImageRecord] = ()
    receipt: Receipt | None = None
    error: JobError | None = None
    measured: Measured | None = None
    step_hashes: Sequence[Sequence[str]] = ()
    latents: Sequence[torch.Tensor] = ()
    safety: Sequence[ImageSafety | None] = ()

    @property
    def denoise_seconds(self) -> float | None:
        """Worker time of the job's own denoising; None unless `generated` or `completed`."""
        return None if self.measured is None else self.measured.denoise_seconds

    @classmethod
    def failed(cls, code: FailureCode, message: str) -> JobResult:
        """A failure, in words for the client."""
        return cls("failed", error=JobError.of(code, message))


def store(
    result: JobResult,
    job_id: str,
    attempt: int,
    storage: ImageWriter,
    credentials: ContentCredentials | None = None,
    receipt_signer: ReceiptSigner | None = None,
) -> JobResult:
    """Write a generated job's images under `images/JOB_ID/ATTEMPT/`, signed by what signs.

    Returns:
        A `completed` result.

    Raises:
        Unavailable: the storage did not take the images; some may be stored.
        JobFailed: an image cannot be encoded or signed; some may be stored.
    """
    if result.receipt is None:
        raise ValueError(f"job {job_id} is {result.status}: it has no images to store")
    started = time.perf_counter()
    folder = f"images/{job_id}/{attempt}"
    about = {
        "pixels_sha256": list(map(hash_pixels, result.images)),
        "latents_merkle_root": list(map(merkle_root, result.step_hashes)),
    }
    receipt = result.receipt.model_copy(update=about)
    signers = _Signers(credentials, receipt_signer, result.step_hashes)
    stored = [_write(image, index, receipt, folder, storage, signers) for index, image in enumerate(result.images)]
    found = result.safety or [None] * len(stored)
    stored = [image.model_copy(update={"safety": one}) for image, one in zip(stored, found, strict=True)]
    kept = _keep_latents(result, latents_key(job_id, attempt), storage)
    if kept is not None:
        # Bytes that the files of its images count against their owner's limit, which counts by image.
        first = stored[0].model_copy(update={"size_bytes": stored[0].size_bytes + kept.size_bytes})
        stored = [first, *stored[1:]]
    timings = {**receipt.timings, "write": round(time.perf_counter() - started, 4)}
    receipt = receipt.model_copy(update={"timings": timings, "kept_latents": kept})
    return replace(result, status="completed", images=(), latents=(), stored=stored, receipt=receipt)


def _keep_latents(result: JobResult, key: str, storage: ImageWriter) -> KeptLatents | None:
    """Write the latents that a job keeps. Those of an image that is hidden would show it."""
    if not result.latents or any(found is not None and found.blurred for found in result.safety):
        return None
    data = save({step_name(number): latents for number, latents in enumerate(result.latents, 1)})
    storage.write(key, data)
    sha256 = hashlib.sha256(data).hexdigest()
    return KeptLatents(steps=len(result.latents), size_bytes=len(data), sha256=sha256)


@dataclass(frozen=True)
class _Signers:
    """The signers of a job's images; None: no signature."""

    credentials: ContentCredentials | None
    receipt_signer: ReceiptSigner | None
    step_hashes: Sequence[Sequence[str]]


def _write(
    image: Image.Image, index: int, receipt: Receipt, folder: str, storage: ImageWriter, signers: _Signers
) -> ImageRecord:
    parameters, seed, credentials = receipt.parameters, receipt.parameters.seeds[index], signers.credentials
    layer = parameters.layer_of(index) if isinstance(parameters, JobParameters) else None
    metadata = receipts.file_metadata(receipt, seed, layer)
    steps = signers.step_hashes[index] if signers.step_hashes else ()
    is_lossless = parameters.output_format == "png"
    if parameters.output_format == "jpeg" and image.has_transparency_data:
        image = flatten(image, "white").convert("RGB")
    try:
        if signers.receipt_signer is not None:
            claims = make_claims(receipt, index, metadata["darkroom"], None if is_lossless else _UNKNOWN, steps)
            metadata = {**metadata, SIGNATURE: signers.receipt_signer.sign(claims)}
        xmp = None if credentials is None else iptc_xmp(has_source=parameters.image is not None)
        data = encode_image(image, parameters.output_format, parameters.output_quality, metadata, xmp)
        if signers.receipt_signer is not None and not is_lossless:
            # Signed again, now that the coded image is known: of the same length, so that it is encoded once.
            claims = make_claims(receipt, index, metadata["darkroom"], hash_image_data(data), steps)
            data = data.replace(metadata[SIGNATURE].encode(), signers.receipt_signer.sign(claims).encode(), 1)
    except Unavailable:
        raise
    except Exception as error:  # libraries raise many types, and one job's image must not end the process
        message = f"the image could not be encoded as {parameters.output_format} ({type(error).__name__})"
        raise JobFailed(FailureCode.INTERNAL, f"{message}; ask for another output_format") from error
    if credentials is not None:
        data = _sign(data, metadata, index, receipt, credentials)
    key = f"{folder}/{index}.{parameters.output_format}"
    storage.write(key, data)
    return ImageRecord(
        key=key,
        width=image.width,
        height=image.height,
        seed=seed,
        layer=layer,
        format=parameters.output_format,
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
    )


def _sign(
    data: bytes, metadata: Mapping[str, str], index: int, receipt: Receipt, credentials: ContentCredentials
) -> bytes:
    """The file with its credentials: last, since they are of its bytes."""
    parameters, pixels = receipt.parameters, receipt.pixels_sha256[index]
    try:
        return credentials.sign(
            data, parameters.output_format, json.loads(metadata["darkroom"]), pixels, parameters.image
        )
    except NotFound as error:
        message = "the input image is no longer stored, and the signature must name it; upload it again"
        raise JobFailed(FailureCode.INPUT_MISSING, message) from error
    except RuntimeError as error:
        raise JobFailed(FailureCode.INTERNAL, str(error)) from error


def encode_image(
    image: Image.Image, file_format: str, quality: int, metadata: Mapping[str, str], xmp: bytes | None = None
) -> bytes:
    """Encode an image file with `metadata["darkroom"]` (JSON) and `metadata["parameters"]` (A1111's line) inside.

    PNG has them as text chunks; JPEG and WebP as EXIF ImageDescription and UserComment, and the signature of the
    first as ImageHistory. A JPEG has room for 64 KiB of EXIF: with very long prompts it lacks the second,
    then all.
    `xmp` is a packet of XMP. The same arguments give the same bytes.
    """
    options: dict[str, object] = {}
    if file_format == "png":
        chunks = PngInfo()
        for name, text in metadata.items():
            chunks.add_text(name, text)
        if xmp is not None:
            chunks.add_itxt("XML:com.adobe.xmp", xmp.decode())
        options = {"pnginfo": chunks}
    else:
        max_bytes = _JPEG_EXIF_BYTES if file_format == "jpeg" else None
        options = {"quality": quality, "exif": _exif(metadata, max_bytes)} | ({} if xmp is None else {"xmp": xmp})
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def _exif(metadata: Mapping[str, str], max_bytes: int | None) -> bytes:
    """Return EXIF with as much of the metadata as fits."""
    every = tuple(metadata)
    for names in (every, every[:1], ()):
        exif = Image.Exif()
        if "darkroom" in names and "darkroom" in metadata:
            exif[ExifTags.Base.ImageDescription] = metadata["darkroom"]
        if "darkroom" in names and SIGNATURE in metadata:
            exif[ExifTags.Base.ImageHistory] = metadata[SIGNATURE]
        if "parameters" in names and "parameters" in metadata:
            comment = b"UNICODE\0" + metadata["parameters"].encode("utf-16-be")
            exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
        data = exif.tobytes()
        if max_bytes is None or len(data) <= max_bytes:
            break
    return data


def failure_of(error: Exception) -> JobError:
    """Return what the client may read; the traceback is in the log."""
    if isinstance(error, JobFailed):
        return JobError.of(error.code, error.message)
    if is_out_of_memory(error):
        message = "the worker's memory is too small for this job; try a smaller size or fewer images"
        return JobError.of(FailureCode.OUT_OF_MEMORY, message)
    message = f"the worker failed unexpectedly ({type(error).__name__}); its log has the details"
    return JobError.of(FailureCode.INTERNAL, message)
