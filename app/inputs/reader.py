"""Every way in which a request may name a picture, and where the picture goes before the job is queued.

`upload:…`, `job:ID/N`, a `data:` URL, bare base64, and an `https:` URL where fetching is allowed. Reading stores
nothing; `store` does.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from app.inputs.decoder import ImageDecoder, InputImage
from app.inputs.fetcher import Fetcher, NotFetched, TooMuch
from contracts.errors import FieldProblem, InvalidRequest, NotFound
from contracts.queue.client import JobQueue
from contracts.queue.records import JobState
from contracts.requests.parameters import JobParameters
from contracts.requests.resolution import StoredImage, StoredImages
from contracts.requests.schema import JobRequest
from contracts.storage import Storage
from contracts.uploads.images import recall
from contracts.uploads.retention import Retention

#: How long what a request names is kept for it while it is being accepted.
ACCEPT_SECONDS = 900
_WAYS = ["upload:ID", "job:ID/N", "data:image/…;base64,…", "base64"]
_JOB_IMAGE = re.compile(r"job:([0-9a-f]{1,64})/([0-9]{1,3})")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@dataclass(frozen=True)
class Input:
    """A picture that a request names.

    Attributes:
        stored: what validation and the job know it by.
        fresh: the picture itself, unless it lies in the storage already.
    """

    stored: StoredImage
    fresh: InputImage | None = None


Inputs = Mapping[str, Input]


class InputReader:
    """Reads the pictures of one caller's requests."""

    def __init__(
        self,
        decoder: ImageDecoder,
        queue: JobQueue,
        storage: Storage,
        retention: Retention,
        owner: str,
        fetcher: Fetcher | None = None,
    ) -> None:
        """`fetcher` is None where the operator does not allow fetching."""
        self._decoder = decoder
        self._queue = queue
        self._storage = storage
        self._retention = retention
        self._owner = owner
        self._fetcher = fetcher

    def read(self, request: JobRequest, kept: StoredImages | None = None) -> Inputs:
        """Find and decode every picture of a request, by field path, but for those that are `kept`.

        Raises:
            InvalidRequest: a name that names nothing, bytes that are no base64, a URL that gives nothing.
            PictureTooLarge: more bytes or pixels than the bounds.
            NotAPicture: bytes that are no image.
            Unavailable: Redis or the storage does not answer.
        """
        kept = kept or {}
        return {
            field: Input(kept[field]) if field in kept else self._read_one(field, text)
            for field, text in _fields_of(request)
        }

    def load(self, field: str, text: str) -> bytes:
        """One picture that a request names, in normal form, as a PNG; raises as `read` does."""
        one = self._read_one(field, text)
        return self._storage.read(one.stored.key) if one.fresh is None else one.fresh.png

    def store(self, inputs: Inputs, parameters: JobParameters) -> JobParameters:
        """Put what was decoded where the workers find it; returns parameters that say where that is."""
        places = {
            one.fresh.sha256: store_image(self._storage, self._retention, one.fresh, ACCEPT_SECONDS)
            for one in inputs.values()
            if one.fresh is not None
        }
        return parameters.with_inputs(places)

    def _read_one(self, field: str, text: str) -> Input:
        scheme = text[:7].lower()
        if scheme == "upload:":
            return Input(self._upload(field, text))
        if scheme.startswith("job:"):
            data = self._job_image(field, text)
        elif scheme.startswith("data:"):
            data = self._data_url(field, text)
        elif _URL.match(text):
            data = self._fetch(field, text)
        else:
            data = self._base64(field, text)
        picture = self._decoder.decode(data, field)
        return Input(picture.stored, picture)

    def _fetch(self, field: str, url: str) -> bytes:
        if self._fetcher is None:
            raise _refused(field, "URLs are not fetched by this service; send the picture itself")
        try:
            return self._fetcher.fetch(url)
        except NotFetched as error:
            raise InvalidRequest([FieldProblem(field, str(error), [*_WAYS, "https://…"])]) from None
        except TooMuch:
            raise self._decoder.too_many_bytes(field) from None

    def _upload(self, field: str, id: str) -> StoredImage:
        upload = recall(self._queue, self._owner, id)
        key = None if upload is None else self._retention.keep(upload.sha256, ACCEPT_SECONDS)
        if upload is None or key is None or not self._storage.exists(key):
            raise _refused(field, "there is no such upload, or it has expired; POST it to /v1/uploads")
        return StoredImage(key, upload.width, upload.height)

    def _job_image(self, field: str, name: str) -> bytes:
        match = _JOB_IMAGE.fullmatch(name)
        if match is None:
            raise _refused(field, "names no image of a job; write job:ID/N, N counted from 0")
        id, number = match[1], int(match[2])
        try:
            job = self._queue.fetch(id)
            if job.owner != self._owner:
                raise NotFound("job", id)
            if job.state is JobState.COMPLETED and number < len(job.images):
                return self._storage.read(job.images[number].key)
        except NotFound:
            raise _refused(field, f"there is no such job as {id}, or it has expired") from None
        if job.state is not JobState.COMPLETED:
            raise _refused(field, f"job {id} is {job.state}; only a completed job has images")
        raise _refused(field, f"job {id} has {len(job.images)} images, counted from 0")

    def _data_url(self, field: str, text: str) -> bytes:
        head, comma, content = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise _refused(field, "is no data: URL in base64; write data:image/png;base64,…")
        return self._base64(field, content)

    def _base64(self, field: str, text: str) -> bytes:
        text = "".join(text.split())
        if len(text) // 4 * 3 > self._decoder.max_bytes + 2:
            raise self._decoder.too_many_bytes(field)
        if len(text) % 4:
            raise _refused(field, "is no base64: its length is no multiple of 4; was it cut off?")
        try:
            data = binascii.a2b_base64(text, strict_mode=True)
        except ValueError as error:
            raise _refused(field, f"is no base64: {error}") from None
        if not data:
            raise _refused(field, "is empty")
        return data


def store_image(storage: Storage, retention: Retention, picture: InputImage, seconds: float) -> str:
    """Put a picture in its place, for some seconds at least; the same bytes are written once. Returns the key."""
    key = retention.hold(picture.sha256, seconds)  # first: what is written is known to the sweep
    if not storage.exists(key):
        storage.write(key, picture.png)
    return key


def _fields_of(request: JobRequest) -> Iterator[tuple[str, str]]:
    """Paths and texts of the pictures that a request names."""
    for field in ("image", "mask_image"):
        text = getattr(request, field, None)
        if text is not None:
            yield field, text
    for index, control in enumerate(getattr(request, "controls", ())):
        if control.image is not None:
            yield f"controls.{index}.image", control.image


def _refused(field: str, message: str) -> InvalidRequest:
    return InvalidRequest([FieldProblem(field, message, _WAYS)])
