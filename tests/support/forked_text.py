"""A program that is given as text, as a process that starts at once: `python -c` would import for a second."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from tests.support.forked_programs import ForkedProgram


@contextmanager
def running(
    program: str, *words: str, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[ForkedProgram, TextIO]]:
    """Run it while the block does; yields the process and its standard output.

    Args:
        words: its `sys.argv[1:]`.
        environment: its own; None: that of the tests.
    """
    reader, writer = os.pipe()
    with os.fdopen(reader, encoding="utf-8") as shown:
        with os.fdopen(writer, "w") as output:
            process = ForkedProgram(
                __name__, environment or os.environ, words=(program, *words), stdout=output.fileno()
            )
        try:
            yield process, shown
        finally:
            process.kill()
            process.communicate(timeout=60)


def main() -> None:
    """Run the text that is the first word."""
    exec(compile(sys.argv.pop(1), "<string>", "exec"), {"__name__": "__main__"})
