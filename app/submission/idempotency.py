"""Calls that make something other than a job, and may be sent again under the same `Idempotency-Key`.

Jobs are `app.acceptance`'s, whose keys are bound in the step that makes the job.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Response

from contracts.errors import Unavailable
from contracts.queue.idempotency import Call, Idempotency

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Repeats:
    """One caller's call.

    Attributes:
        target: its method and path.
        key: None where the client names none.
    """

    idempotency: Idempotency
    owner: str
    target: str
    key: str | None

    def make_once(
        self,
        body: bytes,
        response: Response,
        make: Callable[[], Thing],
        name: Callable[[Thing], str],
        find: Callable[[str], Thing],
    ) -> Thing:
        """What the call makes, or what it made before; a header of the response tells which.

        Args:
            make: once more does no harm.
            name: what the thing is found by.
            find: raises Gone for what is no more.

        Raises:
            Conflict: the same call is being made at this moment.
            InvalidRequest: the key was another call's.
            Unavailable: Redis does not answer.
        """
        if self.key is None:
            return make()
        held = self.idempotency.hold(Call(self.owner, self.key, self.target, body))
        if isinstance(held, str):
            response.headers["Idempotency-Replayed"] = "true"
            return find(held)
        try:
            made = make()
        except BaseException:
            with suppress(Unavailable):  # else its lease runs out
                self.idempotency.release(held)
            raise
        self.idempotency.bind(held, name(made))
        return made
