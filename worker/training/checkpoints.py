"""The checkpoint of a training in the storage: written beside the steps, so that these do not wait for it."""

from __future__ import annotations

import logging
from concurrent.futures import Future

from contracts.errors import NotFound, Unavailable
from contracts.processes.background import BackgroundThread
from contracts.storage import Storage

_log = logging.getLogger(__name__)


class Checkpoints:
    """The newest checkpoint of one job; it is removed with the job's images."""

    def __init__(self, storage: Storage, job_id: str) -> None:
        """Nothing is read or written yet."""
        self._storage, self._key = storage, f"images/{job_id}/checkpoint.safetensors"
        self._thread = BackgroundThread("checkpoint")
        self._written: Future[None] | None = None

    def read(self) -> bytes | None:
        """The newest one; None if there is none.

        Raises:
            Unavailable: the storage does not answer.
        """
        try:
            return self._storage.read(self._key)
        except NotFound:
            return None

    def write(self, data: bytes) -> None:
        """Begin to write one, once the one before is written; what a storage refuses costs only steps."""
        if self._written is not None:
            self._written.result()
        self._written = self._thread.submit(lambda: self._write(data))

    def close(self) -> None:
        """Wait until the last one is written."""
        self._thread.close()

    def _write(self, data: bytes) -> None:
        try:
            self._storage.write(self._key, data)
        except Unavailable as error:
            _log.warning("checkpoint not written: %s", error)
