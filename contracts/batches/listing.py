"""Pages of an owner's files or batches, from an index in Redis. Knows neither kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, NamedTuple, TypeVar, cast

from redis import Redis

from contracts.errors import FieldProblem, InvalidRequest
from contracts.redis.connection import redis_errors_are_unavailable

Entry = TypeVar("Entry")

#: Maximum number of files, and of batches, of one owner: so many are read for a page.
MAX_ENTRIES = 1000


class ListedPage(NamedTuple, Generic[Entry]):
    """Some entries, and whether there are more after them."""

    entries: list[Entry]
    has_more: bool


def list_page(
    connection: Redis,
    index: str,
    prefix: str,
    read: Callable[[str, Mapping[str, str]], Entry | None],
    after: str | None,
    limit: int,
    *,
    newest_first: bool = True,
) -> ListedPage[Entry]:
    """Read a page of an index, which has the ids of hashes by the time of their creation.

    Args:
        prefix: of the hashes' keys.
        read: from id and hash to an entry; None for one that is not listed.
        after: id of the entry before the page; None: the page begins with the first entry.

    Raises:
        InvalidRequest: no entry has the id `after`.
        Unavailable: Redis does not answer.
    """
    with redis_errors_are_unavailable():
        ids = cast("list[str]", connection.zrange(index, 0, -1, desc=newest_first))
        with connection.pipeline(transaction=False) as pipe:
            for id in ids:
                pipe.hgetall(prefix + id)
            hashes = cast("list[dict[str, str]]", pipe.execute())
    found = [(id, read(id, fields)) for id, fields in zip(ids, hashes, strict=True) if fields]
    entries = [(id, entry) for id, entry in found if entry is not None]
    start = 0
    if after is not None:
        places = [number for number, (id, _) in enumerate(entries) if id == after]
        if not places:
            raise InvalidRequest([FieldProblem("after", f"{after[:80]!r} is not the id of an entry of this list")])
        start = places[0] + 1
    page = [entry for _, entry in entries[start : start + limit]]
    return ListedPage(page, start + limit < len(entries))
