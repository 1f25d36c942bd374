"""Whether a service requires API keys: it does for ever once it has had one, even if Redis has lost its data.

The storage keeps a mark of it, because the keys themselves are in Redis only. Knows no HTTP.
"""

from __future__ import annotations

import logging

from contracts.auth.api_keys import ApiKeyStore
from contracts.errors import NotFound, Unavailable
from contracts.storage import Storage

_log = logging.getLogger(__name__)

#: The mark. No route reads or sweeps this folder.
MARK = "service/requires-api-keys"
_TEXT = b"This service has had API keys: calls without one are refused. See docs/keys.md.\n"


class KeyRequirement:
    """Memory of one process of whether keys are required; the answer never changes back to no."""

    def __init__(self, keys: ApiKeyStore, storage: Storage, always: bool = False) -> None:
        """`always`: the operator requires keys whether or not there are any."""
        self._keys = keys
        self._storage = storage
        self._is_required: bool | None = True if always else None
        self._is_marked = False

    def read(self) -> bool:
        """Look up whether calls need a key, and mark the storage when the first key is seen.

        Raises:
            Unavailable: Redis does not answer, or has no keys and the storage has not answered yet.
        """
        if self._keys.exist():
            self._mark()
            self._is_required = True
        elif not self._is_required:
            self._read_mark()
        return bool(self._is_required)

    def refresh(self) -> None:
        """Read and forget the answer: so the first key is marked soon after it was made, without any call."""
        self.read()

    def _mark(self) -> None:
        if self._is_marked:
            return
        try:
            if not self._has_mark():
                self._storage.write(MARK, _TEXT)
            self._is_marked = True
        except Unavailable as error:
            _log.warning(
                "the marker that this service requires API keys could not be written to the storage; trying "
                "again: %s",
                error,
            )

    def _read_mark(self) -> None:
        try:
            self._is_required = self._has_mark()
        except Unavailable:
            # A storage that fails later changes nothing: the last answer holds.
            if self._is_required is None:
                raise
        if self._is_required:
            _log.error(
                "this service has had API keys, and Redis has lost them; all calls are refused until "
                "`darkroom keys create` makes new ones"
            )

    def _has_mark(self) -> bool:
        try:
            self._storage.read(MARK)  # `exists` is false, too, for a storage that cannot be reached
        except NotFound:
            return False
        return True
