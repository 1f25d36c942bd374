"""One stack for all tests; the images are built by `make containers` before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.containers.stack import Stack


@pytest.fixture(scope="session")
def running() -> Iterator[Stack]:
    """The stack with two workers."""
    stack = Stack()
    try:
        stack.up(2)
        yield stack
    finally:
        stack.down()


@pytest.fixture
def stack(running: Stack) -> Stack:
    """The stack, back at two workers that idle."""
    running.up(2)
    running.wait_until(lambda: all(row["state"] == "idle" for row in running.live_workers()), "idle workers")
    return running
