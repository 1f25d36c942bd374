"""The checkpoints of a training in the storage: written beside the steps, so that these do not wait for them.

Each is a file by its content, as inputs are: the job holds the newest one as long as there is a record of the job,
and a training that goes on from it holds it, too.
"""

from __future__ import annotations

import hashlib
import logging
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from contracts.errors import NotFound, Unavailable
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.processes.background import BackgroundThread
from contracts.requests.training.parameters import ResumedTraining
from contracts.storage import Storage
from contracts.uploads.owner_bytes import ByteLimit
from contracts.uploads.retention import Retention
from worker.training.run import CheckpointUnusable, TrainingRun

_log = logging.getLogger(__name__)

#: The most time between the registration of a file and its job's hold on it: that of writing the file.
_WRITING_SECONDS = 3600.0


class CheckpointHolder(Protocol):
    """The job that holds the newest checkpoint."""

    @property
    def checkpoint(self) -> str | None:
        """Storage key of the one that an earlier attempt has left; None without one."""

    def keep_checkpoint(self, key: str, step: int, steps: int) -> None:
        """Hold this one, which was written after `step`, in place of the one before; raises Unavailable."""


@dataclass(frozen=True)
class Restored:
    """The state from which a training resumes.

    Attributes:
        notes: of the checkpoint.
        is_own: whether this training has written it, and not the one that it resumes.
    """

    notes: str
    is_own: bool


class Checkpoints:
    """The checkpoints of one job."""

    def __init__(self, storage: Storage, retention: Retention, holder: CheckpointHolder, owner: str) -> None:
        """Read and write nothing yet.

        Args:
            owner: as whose files they count; a running training is not ended by a limit on these.
        """
        self._storage, self._retention, self._holder = storage, retention, holder
        self._limit = ByteLimit(owner, 0)
        self._thread = BackgroundThread("checkpoint")
        self._written: Future[None] | None = None
        self._step = 0

    def restore(self, run: TrainingRun, resumed: ResumedTraining | None) -> Restored | None:
        """Have a run go on from this training's newest checkpoint; without one, from that of what it resumes.

        Returns:
            None: it begins.

        Raises:
            JobFailed: the training that it resumes has no checkpoint that it could go on from.
            Unavailable: the storage does not answer.
        """
        notes = None if self._holder.checkpoint is None else self._read(run, self._holder.checkpoint)
        if notes is not None:
            self._step = run.step
            return Restored(notes, is_own=True)
        if resumed is None:
            return None
        notes = self._read(run, resumed.checkpoint)
        if notes is None:
            message = (
                f"the checkpoint of training {resumed.id} is missing, damaged, or from other weights of the "
                "model; train from the beginning"
            )
            raise JobFailed(FailureCode.INPUT_MISSING, message)
        return Restored(notes, is_own=False)

    def write(self, run: TrainingRun, notes: str, steps: int) -> None:
        """Begin to write one, once the one before is written; what a storage refuses costs only steps.

        Args:
            steps: of the whole training.
        """
        if self._written is not None:
            self._written.result()
        if run.step != self._step:
            data, step = run.checkpoint(notes), run.step
            self._written = self._thread.submit(lambda: self._write(data, step, steps))

    def close(self) -> None:
        """Wait until the last one is written."""
        self._thread.close()

    def _write(self, data: bytes, step: int, steps: int) -> None:
        try:
            # Before writing, so that the sweep knows of it.
            key = self._retention.retain(
                hashlib.sha256(data).hexdigest(),
                _WRITING_SECONDS,
                "safetensors",
                size_bytes=len(data),
                limit=self._limit,
            )
            self._storage.write(key, data)
            self._holder.keep_checkpoint(key, step, steps)
            self._step = step
        except Unavailable as error:
            _log.warning("checkpoint not written: %s", error)

    def _read(self, run: TrainingRun, key: str) -> str | None:
        """The notes of a checkpoint, from which the run goes on; None: it cannot."""
        try:
            return run.restore(self._storage.read(key))
        except (NotFound, CheckpointUnusable) as error:
            _log.warning("the training does not resume from a checkpoint: %s", error)
            return None
