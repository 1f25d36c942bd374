"""Ends a program that cannot start with status 1 and one line that says why."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from contracts.errors import DarkroomError
from contracts.settings import explain


@contextmanager
def start_errors_in_one_line(program: str) -> Iterator[None]:
    """End the program where the block raises an error of settings, or another one of Darkroom's own.

    Args:
        program: its name, which begins the line on stderr.

    Raises:
        SystemExit: with status 1.
    """
    try:
        yield
    except ValidationError as error:
        sys.exit(f"{program}: {explain(error)}")
    except DarkroomError as error:
        sys.exit(f"{program}: {error}")
