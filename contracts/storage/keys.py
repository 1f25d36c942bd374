"""The form of storage keys: relative paths of plain names, so that no key leads out of its store."""

from __future__ import annotations

import re

from contracts.errors import NotFound

_FOLDER = re.compile(r"^[a-z0-9]+(/[A-Za-z0-9][A-Za-z0-9._-]*)*$")
_KEY = re.compile(r"^[a-z0-9]+(/[A-Za-z0-9][A-Za-z0-9._-]*)+$")


def check_key(key: str) -> str:
    """The key of an object; raises NotFound where it has not the form of one."""
    return _check(key, _KEY)


def check_folder(prefix: str) -> str:
    """The folder that a prefix ending in `/` names, without the slash; raises NotFound as `check_key` does."""
    return _check(prefix.rstrip("/"), _FOLDER)


def _check(text: str, form: re.Pattern[str]) -> str:
    if not form.match(text):
        raise NotFound("stored object", text)
    return text
