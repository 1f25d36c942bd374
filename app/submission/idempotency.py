"""Calls that may be repeated with the same `Idempotency-Key` and create something only once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Response

from contracts.queue.idempotency import CallIdentity, Idempotency, IdempotencyHold

#: Header of a response about something that an earlier call has created.
REPLAYED = "Idempotency-Replayed"
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
        id_of: Callable[[Created], str | None] | None = None,
        *,
        even_if_full: bool = False,
    ) -> Created:
        """Create something, or find what the same call created before; the response's header tells which.

        Args:
            body: what else must be equal for a call to be the same.
            create: gets the held key; does no harm when it runs again after a crash.
            find: looks up by id what was created before; raises Gone where it has expired.
            id_of: the id that the key is to name, or None to forget the key. No function where
                `create` itself binds the key it got.
            even_if_full: whether the call frees something, so that it must work while Redis' memory is full.

        Raises:
            Conflict: the same call is in progress.
            InvalidRequest: the key was used for another call.
            Unavailable: Redis does not answer.
        """
        call = None if self.key is None else CallIdentity(self.owner, self.key, self.target, body)
        created, is_replay = self.idempotency.run(call, create, find, id_of, even_if_full=even_if_full)
        if is_replay:
            response.headers[REPLAYED] = "true"
        return created

    def fingerprint(self, body: bytes) -> str:
        """A hash that is equal for calls with the same target and body, whatever their keys."""
        return CallIdentity(self.owner, "", self.target, body).fingerprint()
