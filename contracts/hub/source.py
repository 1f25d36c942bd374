"""The forms in which a catalogue row names a hub's repository, or one file of it. Opens no connection."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from contracts.hub.environment import read_environment

#: What the name of a checkpoint in one file ends with.
SAFETENSORS, GGUF = ".safetensors", ".gguf"
CHECKPOINT_SUFFIXES = (SAFETENSORS, GGUF)
#: As the hub restricts the parts of a repository's id.
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")
_PUBLIC_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})


@dataclass(frozen=True)
class HubSource:
    """A repository on a hub, or one file of it.

    Attributes:
        repository: `org/name`.
        revision: branch, tag or commit; None: what `main` is when it is first asked for.
        file: path inside the repository; None: the whole repository.
    """

    repository: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        return self.repository if self.file is None else f"{self.repository}/{self.file}"


def parse_source(text: str) -> HubSource | None:
    """Read a source of the catalogue that is not a path on this machine; None if it names nothing on a hub.

    Args:
        text: `org/name`, `org/name/path/file.safetensors`, `org/name/path/file.gguf`, or a page's address of the
            hub: `https://HOST/org/name`, `…/tree/REVISION`, `…/blob/REVISION/FILE`, `…/resolve/REVISION/FILE`.
            HOST is huggingface.co or that of HF_ENDPOINT. The hub writes a revision with a slash as
            `refs%2Fpr%2F1`.
    """
    if "://" in text:
        return _of_address(text)
    parts = text.split("/")
    if not _are_names(parts[:2]) or not _are_plain(parts):
        return None
    is_file = text.endswith(CHECKPOINT_SUFFIXES)
    if len(parts) == 2:
        # A file of that name in the catalogue's folder was meant, and is missing.
        return None if is_file else HubSource(text)
    return HubSource("/".join(parts[:2]), None, "/".join(parts[2:])) if is_file else None


def _of_address(text: str) -> HubSource | None:
    try:
        address = urlsplit(text)
        origin = _origin(text)
        is_hub = origin[0] in _PUBLIC_HOSTS or origin == _origin(read_environment().endpoint)
    except ValueError:
        return None
    parts = [unquote(part) for part in address.path.strip("/").split("/")]
    if (
        not is_hub
        or address.scheme not in ("http", "https")
        or not _are_names(parts[:2])
        or not _are_plain(parts[4:])
    ):
        return None
    repository = "/".join(parts[:2])
    match parts[2:]:
        case []:
            return HubSource(repository)
        case ["tree", revision] if revision:
            return HubSource(repository, revision)
        case ["blob" | "resolve", revision, *file] if revision and file and file[-1].endswith(CHECKPOINT_SUFFIXES):
            return HubSource(repository, revision, "/".join(file))
    return None


def _origin(address: str) -> tuple[str | None, int | None]:
    parts = urlsplit(address)
    return parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _are_names(parts: list[str]) -> bool:
    return len(parts) == 2 and all(
        _NAME.fullmatch(part) and "--" not in part and ".." not in part and not part.endswith(".git")
        for part in parts
    )


def _are_plain(parts: list[str]) -> bool:
    """Whether they lead to a file inside; a part of an address may hold escaped slashes."""
    parts = [piece for part in parts for piece in part.split("/")]
    return all(part not in ("", ".", "..") and "\\" not in part and "\0" not in part for part in parts)
