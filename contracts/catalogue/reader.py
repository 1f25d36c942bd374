"""Reads a catalogue file, and says of each problem in it where it is and what to write instead."""

from __future__ import annotations

import difflib
import re
import tomllib
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from contracts.catalogue.catalogue import (
    Catalogue,
    ControlNetSpec,
    EraserSpec,
    IpAdapterSpec,
    LoraSpec,
    PreprocessorSpec,
    TextualInversionSpec,
    UpscalerSpec,
    VaeSpec,
)
from contracts.catalogue.lines import find_line
from contracts.catalogue.rows.models import ModelSpec
from contracts.catalogue.rows.row import SourceRow
from contracts.errors import CatalogueError


def read_catalogue(path: Path) -> Catalogue:
    """Read and check a catalogue file.

    Raises:
        CatalogueError: the file is missing or not valid TOML, or its rows contradict each other.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CatalogueError(
            f"{path}: catalogue file not found; DARKROOM_CATALOGUE names the file, see README.md"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{path}: {getattr(error, 'strerror', None) or 'is not UTF-8 text'}") from None
    try:
        return _parse(path.resolve().parent, text).model_copy()  # what takes over changes has one of its own
    except (tomllib.TOMLDecodeError, TypeError) as error:
        found = re.fullmatch(r"(.*) \(at line (\d+), column \d+\)", str(error))
        place, reason = (f"{path}:{found[2]}", found[1]) if found else (str(path), str(error))
        raise CatalogueError(f"{place}: {reason}") from None
    except ValidationError as error:
        raise CatalogueError("; ".join(_describe(path, text, item) for item in error.errors())) from None


@lru_cache(maxsize=4)
def _parse(root: Path, text: str) -> Catalogue:
    """The catalogue that a text declares; a process reads its file several times as it starts."""
    return Catalogue(root=root, **tomllib.loads(text))


def _describe(path: Path, text: str, problem: ErrorDetails) -> str:
    """One problem of a catalogue file, with its line and what to write instead."""
    location, message = problem["loc"], problem["msg"].removeprefix("Value error, ")
    where = location
    if problem["type"] == "extra_forbidden":
        known = _known_keys(location)
        near = difflib.get_close_matches(str(location[-1]), known, 1)
        message = f"unknown key; {f'did you mean {near[0]}?' if near else 'known: ' + ', '.join(known)}"
    elif message.startswith("unknown family"):
        where = (*location, "family")
    line = find_line(text, where)
    return f"{path}{f':{line}' if line else ''}: {'.'.join(map(str, location)) or 'catalogue'}: {message}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys of a row, or those of the file."""
    rows: dict[object, type[SourceRow]] = {
        "models": ModelSpec,
        "loras": LoraSpec,
        "controlnets": ControlNetSpec,
        "ip_adapters": IpAdapterSpec,
        "textual_inversions": TextualInversionSpec,
        "vaes": VaeSpec,
        "upscalers": UpscalerSpec,
        "erasers": EraserSpec,
        "preprocessors": PreprocessorSpec,
    }
    if len(location) > 2:
        return list(rows[location[0]].model_fields)
    return [name for name in Catalogue.model_fields if name != "root"]
