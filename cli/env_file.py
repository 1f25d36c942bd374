"""The file `.env` in the current folder: variables that the environment lacks."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

from dotenv import dotenv_values

#: Others in the file are for other programs.
_PREFIXES = ("DARKROOM_", "HF_", "AWS_")


def load_env_file(environ: MutableMapping[str, str] = os.environ, path: Path = Path(".env")) -> frozenset[str]:
    """Set the variables of the service that the file has and the environment lacks; returns their names.

    Raises:
        OSError: the file exists and cannot be read.
        RuntimeError: it is not text.
    """
    if not path.is_file():
        return frozenset()
    try:
        values = dotenv_values(path, encoding="utf-8")
    except UnicodeDecodeError:
        raise RuntimeError(f"{path} is not text in UTF-8; write NAME=value, one a line") from None
    found = {name: text for name, text in values.items() if text and name.startswith(_PREFIXES)}
    missing = {name: text for name, text in found.items() if not environ.get(name)}
    environ.update(missing)
    return frozenset(missing)
