"""Costly files are checked one at a time, and no owner fills the queue for the others."""

from __future__ import annotations

import asyncio
import threading

import pytest

from app.errors import Busy
from app.parsing.file_checks import FileChecks


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_files_are_checked_one_at_a_time_and_an_owner_has_a_share_of_the_queue() -> None:
    go_on, running, most = threading.Event(), [0], [0]

    def check() -> str:
        running[0] += 1
        most[0] = max(most[0], running[0])
        assert go_on.wait(60)
        running[0] -= 1
        return "checked"

    async def main() -> list[str]:
        checks = FileChecks()
        mine = [asyncio.create_task(checks.run("me", check)) for _ in range(8)]
        await settle()
        with pytest.raises(Busy, match="8 of your adapter files are being checked"):
            await checks.run("me", check)
        yours = [asyncio.create_task(checks.run("you", check)) for _ in range(8)]
        await settle()
        with pytest.raises(Busy, match="its maximum number of adapter files"):
            await checks.run("they", check)
        go_on.set()
        checked = [await task for task in (*mine, *yours)]
        return [*checked, await checks.run("me", check)]

    assert asyncio.run(main()) == ["checked"] * 17
    assert most == [1]


def test_a_check_that_fails_leaves_its_place() -> None:
    def fail() -> None:
        raise ValueError("damaged")

    async def main() -> None:
        checks = FileChecks()
        for _ in range(20):
            with pytest.raises(ValueError, match="damaged"):
                await checks.run("me", fail)

    asyncio.run(main())
