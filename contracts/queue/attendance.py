"""Jobs that are cancelled once no client waits for them. Knows no HTTP.

Each of them has a deadline, which the API process that holds the client's connection extends every second or so. A
job whose deadline has passed is cancelled. If no API process was running for a while, clients had nowhere to
reconnect, so the deadlines that passed meanwhile are extended instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from redis import Redis

from contracts.redis import keys
from contracts.redis.connection import Scripts, redis_errors_are_unavailable

#: How long after its time a job is found, at the latest, while any process looks.
_UNWATCHED_SECONDS = 5.0


class AttendedJobs:
    """The times of all attended jobs. Its methods raise Unavailable where Redis does not answer."""

    def __init__(self, connection: Redis, ttl_seconds: int) -> None:
        """`connection` decodes responses; `ttl_seconds` is how long a cancelled job's record stays."""
        self._connection = connection
        self._scripts = Scripts(connection)
        self._ttl_seconds = ttl_seconds

    def extend(self, ids: Sequence[str], seconds: float) -> None:
        """Somebody waits for these jobs, and may be away for so many seconds from now on."""
        with redis_errors_are_unavailable():
            self._scripts.run("attend", ids=list(ids), seconds=seconds)

    def release(self, id: str) -> None:
        """Let a job go on without anybody; does nothing for one that is not attended."""
        with redis_errors_are_unavailable():
            self._connection.zrem(keys.ATTENDED, id)

    def cancel_deserted(self, grace_seconds: float) -> list[str]:
        """Cancel the jobs whose times have passed; returns their ids.

        Args:
            grace_seconds: new time of those whose time passed while nobody looked.
        """
        with redis_errors_are_unavailable():
            found = self._scripts.run(
                "cancel_deserted",
                grace_seconds=grace_seconds,
                unwatched_seconds=_UNWATCHED_SECONDS,
                ttl_seconds=self._ttl_seconds,
            )
        return [str(id) for id in found]
