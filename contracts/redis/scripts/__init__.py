"""The Lua scripts that make claim, lease, fence and reap one atomic step each; loads them by name."""

from __future__ import annotations

from importlib.resources import files

from redis import Redis
from redis.commands.core import Script


def load(connection: Redis, name: str) -> Script:
    """The script `NAME.lua` behind the shared prelude, ready to call with `args=[json]`."""
    folder = files(__name__)
    source = "\n".join((folder / part).read_text(encoding="utf-8") for part in ("prelude.lua", f"{name}.lua"))
    return connection.register_script(source)
