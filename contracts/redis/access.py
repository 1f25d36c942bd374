"""Whether a process may use its Redis, asked once at its start, and the name of a Redis without its secrets."""

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
            f"DARKROOM_REDIS_URL {name}: Redis refuses the user name or password, or their absence; "
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


def without_secrets(url: str) -> str:
    """The URL without user name, password, query and fragment."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    except ValueError:
        return "(unreadable)"
