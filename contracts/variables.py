"""Environment variables of settings: values in files that they name and under old names, and unknown variables.

Settings are read by name, so a misspelt variable would otherwise be ignored without a word. To know all names, the
settings of the parts are read from their source, since nothing here may import them. A part that is not installed
judges its own variables.
"""

from __future__ import annotations

import ast
import difflib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

log = logging.getLogger(__name__)

_PREFIX = "DARKROOM_"
#: Packages with a `settings.py`, and the prefix of the variables that only this package knows.
_PARTS = {"contracts": "", "app": "API_", "worker": "WORKER_", "dispatcher": "WEBHOOK_"}
#: Variables of the command line, of compose, and of the targets of the Makefile, whose services inherit them.
_OTHERS = frozenset(
    _PREFIX + name
    for name in (
        *("SERVER", "API_KEY", "PROGRESS", "SCREENSHOTS"),
        *("PUBLISH", "VERSION", "WORKER_MEMORY"),
        *("CHECK_ALL", "SENTINEL_SERVERS", "SOAK_MINUTES", "ISOLATION_HISTORIES", "TEST_ALL_COMBINATIONS"),
        *("CHAOS_JOBS", "CHAOS_SEED", "CHAOS_OUTAGE_SECONDS"),
        *("FUZZ_KEY", "FUZZ_EXAMPLES", "FUZZ_SECONDS", "FUZZ_PHASES"),
    )
)
#: What Kubernetes sets in each container about a Service whose name begins with `darkroom-`.
_SERVICE_LINK = re.compile(
    r"\w+(_SERVICE_HOST=.*|_SERVICE_PORT(_\w+)?=[0-9]+|_PORT(_[0-9]+_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://.*"
    r"|_PORT_[0-9]+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR)=.*)",
    re.ASCII,
)
#: Old names that are still read, with a warning.
RENAMED = {
    "DARKROOM_API_MAX_PICTURE_BYTES": "DARKROOM_API_MAX_IMAGE_BYTES",
    "DARKROOM_API_MAX_PICTURE_PIXELS": "DARKROOM_API_MAX_IMAGE_PIXELS",
    "DARKROOM_API_FETCH_PICTURES": "DARKROOM_API_FETCH_IMAGES",
    "DARKROOM_API_POST_SECONDS": "DARKROOM_API_FLUSH_SECONDS",
}
_OLD_NAMES = {new: old for old, new in RENAMED.items()}
_STEPS = (
    "jobs share the denoiser step by step since 0.4.0; see DARKROOM_WORKER_MAX_ROWS and DARKROOM_WORKER_MAX_JOBS"
)
#: Variables of earlier releases, and what there is instead.
_REMOVED = {
    "DARKROOM_WORKER_BATCHING": "jobs share the denoiser step by step since 0.4.0; see DARKROOM_WORKER_SCHEDULING",
    "DARKROOM_WORKER_MAX_BATCH_IMAGES": _STEPS,
    "DARKROOM_WORKER_MAX_BATCH_PIXELS": _STEPS,
    "DARKROOM_WORKER_BATCH_WAIT_SECONDS": _STEPS,
    "DARKROOM_QUEUE_RESIDENCY_SECONDS": "set DARKROOM_WORKER_RESIDENCY_SECONDS",
}
#: How alike two names must be, from 0 to 1, for one to be taken as a misspelling of the other.
_SIMILARITY = 0.6
#: Longer names are not compared, which takes time.
_LONGEST_NAME = 80


@dataclass(frozen=True)
class UnreadableFile:
    """Stand-in for the value of a setting whose file cannot be read, so that the error names the setting."""

    reason: str


class _Source(PydanticBaseSettingsSource):
    """Source that knows a field by its variable."""

    def __call__(self) -> dict[str, Any]:
        """All fields that have a value here."""
        found = {
            name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()
        }
        return {name: value for name, value in found.items() if value is not None}

    def _variable(self, field_name: str) -> str:
        return f"{self.config.get('env_prefix', '')}{field_name}".upper()


class NamedFiles(_Source):
    """Source of values in files: `DARKROOM_REDIS_URL_FILE=/run/secrets/redis_url`."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Read the file that the environment names for a field, if any."""
        del field
        variable = f"{self._variable(field_name)}_FILE"
        path = os.environ.get(variable)
        if not path:
            return None, field_name, False
        try:
            return Path(path).read_text(encoding="utf-8").strip(), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
            return UnreadableFile(f"{variable} names {path}, which cannot be read: {reason}"), field_name, False


class OldNames(_Source):
    """Source of values under the old names of renamed variables, with a warning for each."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Read a field's old variable, if it is set and not empty."""
        del field
        variable = self._variable(field_name)
        old = _OLD_NAMES.get(variable, "")
        text = os.environ.get(old) or None
        if text is not None:
            log.warning("%s is deprecated; use %s instead", old, variable)
        return text, field_name, False


@dataclass(frozen=True)
class UnknownVariable:
    """A variable that is set and that nothing reads.

    Attributes:
        remedy: what to do about it, in words; names the setting that was probably meant.
    """

    name: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name} is not a setting and has no effect: {self.remedy}"


def unknown_variables(environ: Mapping[str, str]) -> list[UnknownVariable]:
    """Return the `DARKROOM_` variables that no process reads, by name; empty ones are unset. Shows no values."""
    set_names = sorted(name for name, value in environ.items() if value and name.upper().startswith(_PREFIX))
    return [UnknownVariable(name, _remedy(name)) for name in set_names if not _is_known(name, environ[name])]


def warn_about_unknown_variables(environ: Mapping[str, str]) -> None:
    """Log a warning for each of `unknown_variables`."""
    for variable in unknown_variables(environ):
        log.warning("%s", variable)


def _is_known(name: str, value: str) -> bool:
    # Settings are read whatever the case of their variables; everything else is read as it is written.
    if name in _OTHERS or name in RENAMED or name.upper() in _settings():
        return True
    if name.removesuffix("_FILE") in _settings():
        return True
    if name.upper() in _REMOVED:
        return False
    return _is_of_absent_part(name) or _SERVICE_LINK.fullmatch(f"{name}={value}") is not None


def _is_of_absent_part(name: str) -> bool:
    rest = name.upper().removeprefix(_PREFIX)
    return any(prefix and rest.startswith(prefix) for part, prefix in _PARTS.items() if find_spec(part) is None)


def _remedy(name: str) -> str:
    if name.upper() in _REMOVED:
        return _REMOVED[name.upper()]
    meant = _nearest(name.upper())
    return f"did you mean {meant}?" if meant else "remove it; `darkroom settings` lists all settings"


def _nearest(name: str) -> str | None:
    """Return the setting that was probably meant: the same one of another part, or one that is spelt alike."""
    if name.removesuffix("_FILE") in _settings() or name in _OTHERS or name in RENAMED:
        return name  # it is in the wrong case
    if len(name) > _LONGEST_NAME:
        return None
    rests = {known.removeprefix(_PREFIX): known for known in _settings() | _OTHERS}
    rest = re.sub("_+", "_", name.removeprefix(_PREFIX)).strip("_")
    for tail in (rest, rest.partition("_")[2]):  # as it is, and without the part that it was taken for
        same = [known for name, known in rests.items() if tail and f"_{name}".endswith(f"_{tail}")]
        if len(same) == 1:
            return same[0]
    alike = difflib.get_close_matches(rest, rests, 1, _SIMILARITY)
    return rests[alike[0]] if alike else None


@cache
def _settings() -> frozenset[str]:
    """Return the variables of all settings of the parts that are installed here."""
    return frozenset(name for part in _PARTS for path in _sources(part) for name in _declared(path))


def _sources(part: str) -> Iterator[Path]:
    spec = find_spec(part)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(folder) / "settings.py"


def _declared(path: Path) -> Iterator[str]:
    """Yield the variables of the settings classes in a file: their prefix, and the name of each field."""
    for kind in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(kind, ast.ClassDef):
            continue
        prefixes = [
            keyword.value.value
            for node in ast.walk(kind)
            if isinstance(node, ast.Call)
            for keyword in node.keywords
            if keyword.arg == "env_prefix" and isinstance(keyword.value, ast.Constant)
        ]
        for line in kind.body:
            # A field of its own prefix is not a variable: it holds the settings of another class.
            if not (prefixes and isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)):
                continue
            if not (isinstance(line.annotation, ast.Name) and line.annotation.id.endswith("Settings")):
                yield f"{prefixes[0]!s}{line.target.id}".upper()
