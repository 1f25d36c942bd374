"""Finds files in the storage that no record names, and removes them once they are old. Knows no HTTP.

Files are orphaned when Redis loses data. An input is registered, and a job exists, before its file is written;
neither an input's key nor a job's id is used twice. So a file without a record never gets one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from redis import Redis

from contracts.errors import Unavailable
from contracts.redis import keys
from contracts.redis.connection import redis_errors_are_unavailable
from contracts.storage import Storage

_log = logging.getLogger(__name__)

#: Keys whose records are looked up in one round trip.
_ROUND = 500
_IMAGE = re.compile(r"images/([^/]+)/.+")
_INPUT = re.compile(r"inputs/([0-9a-f]{64})\.[0-9a-f]+\.[a-z]+")

T = TypeVar("T")


class OrphanSweep:
    """Sweep that removes orphaned results and inputs."""

    def __init__(self, connection: Redis, storage: Storage, age_seconds: float) -> None:
        """`connection` decodes responses; files younger than `age_seconds` are left alone."""
        self._connection = connection
        self._storage = storage
        self._age_seconds = age_seconds

    def sweep(self) -> None:
        """List the storage once and remove orphaned files; a file that cannot be removed does not delay others.

        Raises:
            Unavailable: Redis or the storage does not answer.
        """
        images = self._storage.find_older("images/", self._age_seconds)
        inputs = self._storage.find_older("inputs/", self._age_seconds)
        removed = failed = 0
        for key in (*self._without_job(images), *self._unregistered(inputs)):
            try:
                self._storage.delete(key)
                removed += 1
            except Unavailable as error:
                failed += 1
                _log.warning("%s has no record and was not removed: %s", key, error)
        if removed or failed:
            _log.warning("files without a record: %d removed, %d left", removed, failed)

    def _without_job(self, image_keys: Iterable[str]) -> Iterator[str]:
        """The keys of images whose job has neither a record nor a tombstone."""
        by_job: dict[str, list[str]] = {}
        for key in image_keys:
            match = _IMAGE.fullmatch(key)
            if match is not None:
                by_job.setdefault(match[1], []).append(key)
        for ids in _rounds(list(by_job)):
            with redis_errors_are_unavailable(), self._connection.pipeline(transaction=False) as pipe:
                for id in ids:
                    pipe.exists(keys.JOB + id)
                found = pipe.execute()
            for id, exists in zip(ids, found, strict=True):
                if not exists:
                    yield from by_job[id]

    def _unregistered(self, input_keys: Iterable[str]) -> Iterator[str]:
        """The keys of inputs that neither a request nor a job can name."""
        matches = [match for match in map(_INPUT.fullmatch, input_keys) if match is not None]
        for chunk in _rounds(matches):
            with redis_errors_are_unavailable(), self._connection.pipeline(transaction=False) as pipe:
                for match in chunk:
                    pipe.get(keys.INPUT + match[1])
                    pipe.hexists(keys.INPUT_HOLDERS, match[0])
                found = pipe.execute()
            for match, registered, is_used in zip(chunk, found[::2], found[1::2], strict=True):
                if registered != match[0] and not is_used:
                    yield match[0]


def _rounds(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + _ROUND] for start in range(0, len(items), _ROUND))
