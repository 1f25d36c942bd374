"""Where the hub is and where its files are cached: the environment variables of huggingface_hub, by their names.

Read whenever they are needed, unlike huggingface_hub, which reads them when it is imported.
https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

PUBLIC_ENDPOINT = "https://huggingface.co"
_DEFAULT_TIMEOUT_SECONDS = 10.0
_TRUE = frozenset({"1", "on", "yes", "true"})


@dataclass(frozen=True)
class HubEnvironment:
    """Address, token and cache with which this process uses the hub.

    Attributes:
        endpoint: HF_ENDPOINT, without a slash at its end.
        cache: HF_HUB_CACHE; else the folder `hub` in HF_HOME.
        token: HF_TOKEN; else the content of HF_TOKEN_PATH, by default the file `token` in HF_HOME; None: none.
        is_offline: HF_HUB_OFFLINE: nothing may be asked or fetched.
        timeout_seconds: HF_HUB_DOWNLOAD_TIMEOUT: maximum time to connect, and between two parts of an answer.
    """

    endpoint: str
    cache: Path
    token: str | None = field(repr=False)
    is_offline: bool
    timeout_seconds: float


def read_environment() -> HubEnvironment:
    """Read the environment as it is now; a value that cannot be used counts as unset, as in huggingface_hub."""
    home = _folder("HF_HOME") or (_folder("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    cache = _folder("HF_HUB_CACHE") or _folder("HUGGINGFACE_HUB_CACHE") or home / "hub"
    offline = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return HubEnvironment(
        endpoint=(os.environ.get("HF_ENDPOINT") or PUBLIC_ENDPOINT).rstrip("/"),
        cache=cache,
        token=_read_token(home),
        is_offline=offline.lower() in _TRUE,
        timeout_seconds=_read_timeout(),
    )


def _folder(variable: str) -> Path | None:
    text = os.environ.get(variable)
    return Path(os.path.expandvars(text)).expanduser() if text else None


def _read_token(home: Path) -> str | None:
    token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN") or ""
    if not token.strip():
        try:
            token = (_folder("HF_TOKEN_PATH") or home / "token").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None
    return token.strip() or None


def _read_timeout() -> float:
    try:
        seconds = float(os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT") or _DEFAULT_TIMEOUT_SECONDS)
    except ValueError:
        return _DEFAULT_TIMEOUT_SECONDS
    return seconds if 0 < seconds < float("inf") else _DEFAULT_TIMEOUT_SECONDS


def describe_environment() -> str:
    """List the variables with the values in effect and their meanings; of the token only whether there is one."""
    now = read_environment()
    rows = [
        ("HF_TOKEN", "none" if now.token is None else "set, not shown",
         "token for gated repositories; HF_TOKEN_PATH names a file with it"),
        ("HF_HOME", f"files in {now.cache}", "holds downloaded files, in `hub`; HF_HUB_CACHE: that folder"),
        ("HF_ENDPOINT", now.endpoint, "address of the hub, or of a mirror that speaks its protocol"),
        ("HF_HUB_OFFLINE", "on" if now.is_offline else "off", "fetch nothing: only what the cache has is usable"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", f"{now.timeout_seconds:g}",
         "maximum seconds to connect to the hub, and between two parts of an answer; then it is tried later"),
    ]  # fmt: skip
    return "\n".join(f"  {name:38} {value}\n      {meaning}" for name, value, meaning in rows)
