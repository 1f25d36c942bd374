"""Requests to the hub: what a revision is now, what a commit consists of, the bytes of a file.

Every request has a time-out, for connecting and for each part of the answer; answers other than files are bounded.
Caches nothing, writes nothing. https://huggingface.co/docs/hub/api
"""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import quote

import httpx

from contracts.hub.environment import HubEnvironment
from contracts.hub.errors import HubRefused, HubUnavailable

_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
#: A page of a listing has at most 1000 files, of a few hundred bytes each.
_MAX_ANSWER_BYTES = 16 * 2**20
_MAX_PAGES = 100
#: As a multiple of the time-out for each part: maximum time for a whole answer that is not a file, and the time
#: over which a file must come at a minimum speed.
_WINDOW = 6
_MIN_BYTES_PER_SECOND = 1024
_NO_SUCH_RANGE = 416


@cache
def _trusted_certificates() -> ssl.SSLContext:
    """The usual certificate authorities, and those of SSL_CERT_FILE; reading them is slow."""
    return httpx.create_ssl_context()


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a commit already, which never moves."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


@dataclass(frozen=True)
class HubFile:
    """One file of a commit.

    Attributes:
        size: bytes.
        blob_id: git's id of the file, 40 hex digits; of the file's pointer where it is stored as a large one.
        sha256: of a large file's content, 64 hex digits; None for the others.
    """

    size: int
    blob_id: str
    sha256: str | None = None

    def __post_init__(self) -> None:
        # They become names of files.
        if not _DIGEST.fullmatch(self.digest) or self.size < 0:
            raise ValueError(f"neither a SHA-256 nor a git id: {self.digest[:80]!r}")

    @property
    def digest(self) -> str:
        """Which names the file in the cache, and tells whether it is complete and undamaged."""
        return self.sha256 or self.blob_id


class HubClient:
    """A connection to one hub; not thread-safe. Close it, or use it in a `with` block."""

    def __init__(self, environment: HubEnvironment) -> None:
        """Open no connection yet. Raises HubRefused where the environment makes all of them impossible."""
        self._environment = environment
        headers = {"User-Agent": "darkroom"}
        if environment.token is not None:
            if not environment.token.isascii() or not environment.token.isprintable():
                raise HubRefused("HF_TOKEN contains characters that are not allowed in a token: set it again")
            headers["Authorization"] = f"Bearer {environment.token}"
        try:
            # httpx drops Authorization where a redirect leads to another host, such as the hub's CDN.
            self._http = httpx.Client(
                headers=headers,
                timeout=environment.timeout_seconds,
                verify=_trusted_certificates(),
                follow_redirects=True,
            )
        except OSError as error:
            raise HubRefused("the certificates that SSL_CERT_FILE names cannot be read") from error
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            raise HubRefused("the proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names cannot be used") from error

    def __enter__(self) -> HubClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def commit(self, repository: str, revision: str | None = None) -> str:
        """The commit, 40 hex digits, that a branch or tag is now; `main` by default.

        Raises:
            HubUnavailable, HubRefused: as for every request.
        """
        url = f"{self._environment.endpoint}/api/models/{repository}/revision/{quote(revision or 'main', safe='')}"
        answer, _ = self._json(url, repository, revision)
        commit = answer.get("sha") if isinstance(answer, dict) else None
        if not isinstance(commit, str) or not is_commit(commit):
            raise HubUnavailable(f"the hub's answer about {repository} cannot be read")
        return commit

    def tree(self, repository: str, commit: str) -> dict[str, HubFile]:
        """All files of a commit by their paths.

        Raises:
            HubUnavailable, HubRefused: as for every request.
        """
        files: dict[str, HubFile] = {}
        url = f"{self._environment.endpoint}/api/models/{repository}/tree/{quote(commit, safe='')}?recursive=true"
        for _ in range(_MAX_PAGES):
            rows, next_url = self._json(url, repository, commit)
            try:
                files |= {
                    row["path"]: _file(row) for row in rows if row["type"] == "file" and _is_safe(row["path"])
                }
            except (KeyError, TypeError, ValueError, AttributeError):
                raise HubUnavailable(f"the hub's listing of {repository} cannot be read") from None
            if next_url is None:
                return files
            url = next_url
        raise HubRefused(f"{repository} has too many files for a model: more than {len(files)}")

    @contextmanager
    def stream(
        self, repository: str, commit: str, path: str, begin: int = 0, end: int | None = None
    ) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Read a file from byte `begin` up to, but without, byte `end`; the hub may ignore both.

        Yields:
            The offset of the first byte that comes, 0 or `begin`, and the chunks.

        Raises:
            HubUnavailable, HubRefused: as for every request; HubUnavailable also where the answer breaks off.
        """
        url = f"{self._environment.endpoint}/{repository}/resolve/{quote(commit, safe='')}/{quote(path)}"
        window = _WINDOW * self._environment.timeout_seconds
        headers = {"Accept-Encoding": "identity"}  # ranges count the bytes of the file
        if begin or end is not None:
            headers["Range"] = f"bytes={begin}-{'' if end is None else end - 1}"
        with self._request(url, repository, commit, headers, path) as response:
            if response.status_code != _NO_SUCH_RANGE:
                yield begin if response.status_code == 206 else 0, _chunks(response, repository, window)
                return
        del headers["Range"]
        with self._request(url, repository, commit, headers, path) as response:
            yield 0, _chunks(response, repository, window)

    def _json(self, url: str, repository: str, revision: str | None) -> tuple[Any, str | None]:
        """The body, and the address of the next page where the hub names one."""
        deadline = time.monotonic() + _WINDOW * self._environment.timeout_seconds
        body = bytearray()
        with self._request(url, repository, revision, {}) as response, _errors_of(repository):
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > _MAX_ANSWER_BYTES:
                    raise HubUnavailable(f"the hub's answer about {repository} is too long")
                if time.monotonic() > deadline:
                    raise HubUnavailable(f"the hub took too long to answer about {repository}")
            following = response.links.get("next", {}).get("url")
            page = None if following is None else str(response.url.join(following))
        # The token goes with every request, so it must not be led elsewhere.
        if page is not None and not page.startswith(f"{self._environment.endpoint}/"):
            raise HubUnavailable(
                f"the hub's listing of {repository} continues at another address, which is not followed"
            )
        try:
            return json.loads(body), page
        except (ValueError, RecursionError):
            raise HubUnavailable(f"the hub's answer about {repository} cannot be read") from None

    @contextmanager
    def _request(
        self, url: str, repository: str, revision: str | None, headers: Mapping[str, str], path: str | None = None
    ) -> Iterator[httpx.Response]:
        with _errors_of(repository):
            response = self._http.send(self._http.build_request("GET", url, headers=headers), stream=True)
        try:
            if response.status_code not in (200, 206) and not (
                response.status_code == _NO_SUCH_RANGE and "Range" in headers
            ):
                has_token = self._environment.token is not None
                raise refusal(
                    response.status_code, response.headers, repository, revision, path, has_token=has_token
                )
            yield response
        finally:
            response.close()


@contextmanager
def _errors_of(repository: str) -> Iterator[None]:
    try:
        yield
    except httpx.TimeoutException as error:
        raise HubUnavailable(f"the hub did not answer in time about {repository}") from error
    except httpx.ConnectError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise HubRefused(
                "the hub's certificate is not trusted: name its authority in SSL_CERT_FILE, or correct HF_ENDPOINT"
            ) from error
        raise HubUnavailable(f"the hub cannot be reached, so {repository} cannot be fetched") from error
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise HubRefused("HF_ENDPOINT must be an address with http:// or https://") from error
    except httpx.HTTPError as error:
        raise HubUnavailable(f"the connection to the hub broke while {repository} was fetched") from error


def _chunks(response: httpx.Response, repository: str, window_seconds: float) -> Iterator[bytes]:
    """The body in parts, each as soon as it has arrived; ends a body that trickles."""
    begin, received = time.monotonic(), 0
    with _errors_of(repository):
        for chunk in response.iter_raw():
            yield chunk
            received += len(chunk)
            seconds = time.monotonic() - begin
            if seconds > window_seconds:
                if received < _MIN_BYTES_PER_SECOND * seconds:
                    raise HubUnavailable(f"the hub sent {repository} too slowly")
                begin, received = time.monotonic(), 0


def _file(row: Mapping[str, Any]) -> HubFile:
    large = row.get("lfs")
    if large:
        return HubFile(int(large["size"]), str(row["oid"]), str(large["oid"]).removeprefix("sha256:"))
    return HubFile(int(row["size"]), str(row["oid"]))


def _is_safe(path: str) -> bool:
    """Whether a path stays inside the snapshot's folder."""
    return not {"\\", "\0"} & set(path) and all(part not in ("", ".", "..") for part in path.split("/"))


def refusal(
    status: int,
    headers: Mapping[str, str],
    repository: str,
    revision: str | None,
    path: str | None,
    *,
    has_token: bool,
) -> HubUnavailable | HubRefused:
    """The error for a status other than success, by the hub's X-Error-Code where it sends one."""
    code = headers.get("X-Error-Code", "")
    if status in (408, 425, 429) or status >= 500:
        message = f"the hub answers with status {status}, so {repository} cannot be fetched now"
        return HubUnavailable(message, _retry_seconds(headers.get("Retry-After", "")))
    if code == "GatedRepo":
        remedy = (
            "the account of HF_TOKEN has no access yet: accept its terms on the hub"
            if has_token
            else "accept its terms on the hub and set HF_TOKEN for the worker"
        )
        return HubRefused(f"{repository} is gated: {remedy}")
    if code == "RevisionNotFound":
        return HubRefused(f"{repository} has no revision {revision}: use a branch, a tag or a commit of it")
    if code == "EntryNotFound":
        return HubRefused(f"{repository} has no file {path}")
    if status == 401 and has_token and code != "RepoNotFound":
        return HubRefused(
            f"the hub does not accept HF_TOKEN, so {repository} cannot be fetched: set a valid token"
        )
    if code == "RepoNotFound" or status in (401, 404):
        remedy = (
            "or HF_TOKEN may not read it: check its name and the token"
            if has_token
            else "or is private: check its name, or set HF_TOKEN for the worker"
        )
        return HubRefused(f"{repository} does not exist on the hub, {remedy}")
    return HubRefused(f"the hub refuses {repository} with status {status}")


def _retry_seconds(text: str) -> float | None:
    """Retry-After in seconds (RFC 9110 §10.2.3); a date is not read: back-off does as well."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
