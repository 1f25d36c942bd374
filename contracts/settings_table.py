"""All settings as a table for people: effective values, where each comes from, and what it means.

Shows no secret. A value that cannot be used is shown with the reason, and hides no other.
"""

from __future__ import annotations

import argparse
import os
import shutil
import textwrap
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from contracts.byte_sizes import gib
from contracts.processes.start_errors import start_errors_in_one_line
from contracts.redis.access import without_secrets

_LONGEST_LINE = 120


@dataclass(frozen=True)
class Table:
    """Choice of the settings that are printed.

    Attributes:
        dotenv: variables that were read from the file `.env`.
        only_set: leave out the settings that have their defaults.
    """

    dotenv: Collection[str] = ()
    only_set: bool = False

    def describe(self, *classes: type[BaseSettings]) -> str:
        """One group for each class: its title, and each variable with its value, source and meaning."""
        groups = [(_title(settings), list(self._rows(settings))) for settings in classes]
        return "\n".join("\n".join([title, *rows, ""]) for title, rows in groups if rows)

    def _rows(self, settings: type[BaseSettings]) -> Iterator[str]:
        width = min(_LONGEST_LINE, shutil.get_terminal_size((_LONGEST_LINE, 0)).columns)
        fields = {name: field for name, field in settings.model_fields.items() if not _is_group(field)}
        values, problems = _read(settings, fields)
        for name, field in fields.items():
            variable = f"{settings.model_config.get('env_prefix', '')}{name}".upper()
            source = self._source(variable)
            if source is None and self.only_set:
                continue
            if source is None:
                yield f"  {variable:38} {_show(name, _default(field))}"
            else:
                value = f"not usable: {problems[name]}" if name in problems else _show(name, values[name])
                yield f"  {variable:38} {value}   (from {source}; default: {_show(name, _default(field))})"
            indent = " " * 6
            yield textwrap.fill(field.description or "", width, initial_indent=indent, subsequent_indent=indent)

    def _source(self, variable: str) -> str | None:
        """Where a setting's value comes from; None where it has its default."""
        names = {name.upper(): name for name, value in os.environ.items() if value}
        if variable in names:
            return ".env" if names[variable] in self.dotenv else "the environment"
        file = os.environ.get(f"{variable}_FILE")
        return f"the file {file}" if file else None


def run(*classes: type[BaseSettings]) -> int:
    """Print the table, or with `--check` read the settings. Returns the exit status.

    `--set` leaves out defaults; `--dotenv NAME` names a variable that `.env` has set.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--set", action="store_true")
    parser.add_argument("--dotenv", action="append", default=[])
    arguments = parser.parse_args()
    if not arguments.check:
        table = Table(arguments.dotenv, arguments.set).describe(*classes)
        print(table, end="\n" if table else "")  # noqa: T201
        return 0
    with start_errors_in_one_line("darkroom"):
        for settings in classes:
            settings()
    return 0


def _title(settings: type[BaseSettings]) -> str:
    first = (settings.__doc__ or settings.__name__).partition("\n")[0]
    return first.partition(". ")[0].partition(";")[0].rstrip(".")


def _is_group(field: FieldInfo) -> bool:
    """Whether a field is not a variable: it has the settings of another class."""
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseSettings)


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True, validated_data={})


def _read(
    settings: type[BaseSettings], fields: Mapping[str, FieldInfo]
) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """The values of fields, and the reasons why some cannot be used, which have their defaults instead."""
    # Groups have rows of their own. What is passed here comes before what the environment says.
    passed: dict[str, Any] = {
        name: field.annotation.model_construct()
        for name, field in settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseSettings)
    }
    problems: dict[str, str] = {}
    while True:
        try:
            return vars(settings(**passed)), problems
        except ValidationError as error:
            found = {str(item["loc"][0]): item["msg"] for item in error.errors() if item["loc"]}
        if not found.keys() - problems.keys():
            return {name: _default(field) for name, field in fields.items()}, problems
        problems |= {name: message.removeprefix("Value error, ") for name, message in found.items()}
        passed |= {name: _default(fields[name]) for name in found}


def _show(name: str, value: object) -> str:
    if isinstance(value, SecretStr):
        return "set, not shown"
    if value is None or value in ("", []):
        return "none"
    if "://" in str(value) and not isinstance(value, list):
        return without_secrets(str(value))
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int) and name.endswith("_bytes") and value:
        return f"{value} ({gib(value)})"
    return str(value)
