"""Options that an API key has set for its own later calls: one Redis hash each, which expires when it is not used.

What an option means, and which there are, is a matter of the API that has them. Knows no HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from redis import Redis

from contracts.redis import keys
from contracts.redis.connection import redis_errors_are_unavailable

#: How long options are kept after the last call that they acted on.
OPTIONS_TTL_SECONDS = 30 * 86_400


class CallerOptions:
    """The options of all callers. Methods raise Unavailable when Redis does not answer."""

    def __init__(self, connection: Redis) -> None:
        """`connection` decodes responses."""
        self._connection = connection

    def read(self, key_id: str) -> dict[str, Any]:
        """Return what this API key has set; it is kept for longer from now on."""
        key = keys.CALLER_OPTIONS + key_id
        with redis_errors_are_unavailable(), self._connection.pipeline(transaction=False) as pipe:
            pipe.hgetall(key)
            pipe.expire(key, OPTIONS_TTL_SECONDS)
            found, _ = pipe.execute()
        return {name: json.loads(text) for name, text in found.items()}

    def set(self, key_id: str, options: Mapping[str, Any]) -> None:
        """Set some options of this API key, and leave the others as they are."""
        if not options:
            return
        key = keys.CALLER_OPTIONS + key_id
        with redis_errors_are_unavailable(), self._connection.pipeline() as pipe:
            pipe.hset(key, mapping={name: json.dumps(value) for name, value in options.items()})
            pipe.expire(key, OPTIONS_TTL_SECONDS)
            pipe.execute()
