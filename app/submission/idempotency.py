"""Calls that may be repeated with the same `Idempotency-Key` and create something only once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Response

from contracts.errors import Unavailable
from contracts.queue.client import IdempotencyHold
from contracts.queue.idempotency import Call, Idempotency

Created = TypeVar("Created")


@dataclass(frozen=True)
class IdempotentCall:
    """One client's call, as its idempotency key identifies it.

    Attributes:
        target: method and path.
        key: None where the client sends none.
    """

    idempotency: Idempotency
    owner: str
    target: str
    key: str | None

    def run(
        self,
        body: bytes,
        response: Response,
        create: Callable[[IdempotencyHold | None], Created],
        find: Callable[[str], Created],
        id_of: Callable[[Created], str] | None = None,
    ) -> Created:
        """Create something, or find what the same call created before; the response's header tells which.

        Args:
            body: what else must be equal for a call to be the same.
            create: gets the held key; does no harm when it runs again after a crash.
            find: looks up by id what was created before; raises Gone where it has expired.
            id_of: the id that the key is to name; None where `create` itself binds the key it got.

        Raises:
            Conflict: the same call is in progress.
            InvalidRequest: the key was used for another call.
            Unavailable: Redis does not answer.
        """
        if self.key is None:
            return create(None)
        hold = self.idempotency.hold(Call(self.owner, self.key, self.target, body))
        if isinstance(hold, str):
            response.headers["Idempotency-Replayed"] = "true"
            return find(hold)
        try:
            created = create(hold)
        except BaseException:
            with suppress(Unavailable):  # the key's lease expires by itself
                self.idempotency.release(hold)
            raise
        if id_of is not None:
            self.idempotency.bind(hold, id_of(created))
        return created
