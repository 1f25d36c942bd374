"""Finds the image that a text in a request names or holds.

Forms: `upload:ID`, `job:ID/N`, a `data:` URL, base64, or an `https:` URL where fetching is allowed. It decodes
no image.
"""

from __future__ import annotations

import re

from app.inputs.base64_text import FORMS, SEND, decode_base64, decode_data_url, is_path, is_remote, refused
from app.inputs.decoder import ImageDecoder
from app.inputs.fetcher import Fetcher, NotFetched, TooMuch
from contracts.errors import FieldProblem, InvalidRequest, NotFound
from contracts.jobs.records import JobState
from contracts.queue.client import JobQueue
from contracts.requests.images.stored_image import StoredImage
from contracts.storage import Storage
from contracts.uploads.images import recall
from contracts.uploads.retention import Retention

#: How long images are held for a request that is being accepted.
ACCEPT_SECONDS = 900
_JOB_IMAGE = re.compile(r"job:([0-9a-f]{1,64})/([0-9]{1,3})")


class ImageFinder:
    """Finder of one owner's images; those of others do not exist for it."""

    def __init__(
        self,
        decoder: ImageDecoder,
        queue: JobQueue,
        storage: Storage,
        retention: Retention,
        owner: str,
        fetcher: Fetcher | None,
    ) -> None:
        """`decoder` has the limits of an image; `fetcher` is None where fetching is not allowed."""
        self._decoder = decoder
        self._queue = queue
        self._storage = storage
        self._retention = retention
        self._owner = owner
        self._fetcher = fetcher

    def find(self, field: str, text: str) -> bytes | StoredImage:
        """Return the image that a text names or holds: its file's bytes, or where an upload is stored.

        Raises:
            InvalidRequest: the name is unknown, the text is not base64, or the URL cannot be fetched.
            ImageTooLarge: more bytes than an image may have.
            Unavailable: Redis or the storage does not answer.
        """
        scheme = text[:7].lower()
        if scheme == "upload:":
            return self._upload(field, text)
        if scheme.startswith("job:"):
            return self._job_image(field, text)
        if scheme.startswith("data:"):
            return decode_data_url(field, text, self._decoder)
        if is_path(text):
            raise refused(
                field, f"is a path or a file name, {text[:80]!r}, which this service cannot read; {SEND}"
            )
        if is_remote(text):
            return self._fetch(field, text.strip())
        return decode_base64(field, text, self._decoder)

    def _fetch(self, field: str, url: str) -> bytes:
        if self._fetcher is None:
            raise refused(field, "URLs are not fetched by this service; send the image itself")
        try:
            return self._fetcher.fetch(url)
        except NotFetched as error:
            raise InvalidRequest([FieldProblem(field, str(error), [*FORMS, "https://…"])]) from None
        except TooMuch:
            raise self._decoder.too_many_bytes(field) from None

    def _upload(self, field: str, id: str) -> StoredImage:
        upload = recall(self._queue.connection, self._owner, id)
        key = None if upload is None else self._retention.retain_existing(upload.sha256, ACCEPT_SECONDS)
        if upload is None or key is None or not self._storage.exists(key):
            raise refused(field, "this upload does not exist or has expired; send it to POST /v1/uploads")
        return StoredImage(key, upload.width, upload.height, upload.color_profile)

    def _job_image(self, field: str, name: str) -> bytes:
        match = _JOB_IMAGE.fullmatch(name)
        if match is None:
            raise refused(field, f"must be job:ID/N with N counted from 0, got {name[:80]!r}")
        id, number = match[1], int(match[2])
        try:
            job = self._queue.fetch(id)
            if job.owner != self._owner:
                raise NotFound("job", id)
            if job.state is JobState.COMPLETED and number < len(job.images):
                return self._storage.read(job.images[number].key)
        except NotFound:
            raise refused(field, f"job {id} does not exist or has expired") from None
        if job.state is not JobState.COMPLETED:
            raise refused(field, f"job {id} is {job.state}; only completed jobs have images")
        raise refused(field, f"job {id} has {len(job.images)} images, counted from 0; got {number}")
