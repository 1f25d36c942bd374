"""A process's checks of its Redis at the start: whether it has access, and whether Redis' settings risk jobs.

Also the name of a Redis without its secrets.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from redis import exceptions as redis_errors
from redis.sentinel import MasterNotFoundError

from contracts.errors import SettingsError
from contracts.redis.connection import connect

_TIMEOUT_SECONDS = 2.0


def check_access(url: str) -> bool:
    """Return whether Redis answers; one that does not may still come.

    Raises:
        SettingsError: the URL is unusable, or Redis refuses the user or password, so that waiting is useless. The
            message does not contain the password.
    """
    name = without_secrets(url)
    try:
        with connect(url, timeout_seconds=_TIMEOUT_SECONDS, retries=0) as connection:
            connection.ping()
    except (redis_errors.AuthenticationError, redis_errors.NoPermissionError):
        raise SettingsError(
            f"DARKROOM_REDIS_URL {name}: Redis refuses the user name or password, or requires them; "
            "correct them in the URL"
        ) from None
    except MasterNotFoundError as error:
        if "AuthenticationError" not in str(error):
            return False
        raise SettingsError(
            f"DARKROOM_REDIS_URL {name}: a Sentinel refuses the user name or password; correct sentinel_username "
            "and sentinel_password in the URL"
        ) from None
    except redis_errors.RedisError:
        return False
    return True


def find_memory_risks(url: str) -> list[str]:
    """Say which of the settings of Redis put jobs at risk; empty where none does, or where nothing is known.

    A Redis that this service has not started may have any settings: without `maxmemory` it grows until the
    machine kills it, and with an evicting policy it drops waiting jobs and API keys when it is full.
    """
    name, risks = without_secrets(url), []
    try:
        with connect(url, timeout_seconds=_TIMEOUT_SECONDS, retries=0) as connection:
            memory = connection.info("memory")
    except redis_errors.RedisError:
        return []
    if memory.get("maxmemory") == 0:
        risks.append(
            f"Redis {name} has no memory limit: it grows until the system kills it; "
            "set maxmemory to about 70 % of the memory that it may use"
        )
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        risks.append(
            f"Redis {name} evicts keys when its memory is full (maxmemory-policy {policy}), which loses jobs and "
            "API keys; set maxmemory-policy to noeviction"
        )
    return risks


def without_secrets(url: str) -> str:
    """The URL without user name, password, query and fragment."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    except ValueError:
        return "(unreadable)"
