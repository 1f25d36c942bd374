"""The form of storage keys: relative paths of plain names, so that no key can leave the storage folder."""

from __future__ import annotations

import re

from contracts.errors import NotFound

_FOLDER = re.compile(r"^[a-z0-9]+(/[A-Za-z0-9][A-Za-z0-9._-]*)*$")
_KEY = re.compile(r"^[a-z0-9]+(/[A-Za-z0-9][A-Za-z0-9._-]*)+$")


def check_key(key: str) -> str:
    """Return a key of a file; raises NotFound if it does not have the form of a key."""
    return _check(key, _KEY)


def check_folder(prefix: str) -> str:
    """Return the folder that a prefix names, without the final slash; raises NotFound like `check_key`."""
    return _check(prefix.rstrip("/"), _FOLDER)


def _check(text: str, pattern: re.Pattern[str]) -> str:
    if not pattern.match(text):
        raise NotFound("stored object", text)
    return text
