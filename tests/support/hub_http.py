"""The HTTP side of the stand-in hub: what it answers, and how it misbehaves. Repositories are `hub.py`'s."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from tests.support.hub import Hub

_API = re.compile(
    r"/api/models/(?P<repository>[^/]+/[^/]+)(?:/(?P<what>revision|tree|paths-info)/(?P<revision>[^/]+))?"
)
#: Path of a file of a repository.
FILE = re.compile(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
_STEP_BYTES = 256 * 1024


@dataclass(frozen=True)
class HubFile:
    """A file of a repository.

    Attributes:
        sha256: of its content.
        git_id: git's id of it as a blob.
        is_large: in large file storage, as weights are; its ETag is then `sha256`, else `git_id`.
    """

    content: bytes
    sha256: str
    git_id: str
    is_large: bool


@dataclass(frozen=True)
class Fault:
    """How the hub misbehaves, for requests with `path` in their path and query; the first such fault counts.

    Attributes:
        path: part of the path; empty: every request.
        status: to answer with, for example 503.
        retry_after_seconds: header beside that status.
        latency_seconds: before any answer.
        is_silent: takes the request and never answers, until the hub is stopped or its fault is taken away.
        bytes_per_second: of each file.
        cut_bytes: closes the connection in the body after so many.
        flips: one bit of the content is wrong.
        is_short: the second half of the content is missing.
    """

    path: str = ""
    status: int | None = None
    retry_after_seconds: float | None = None
    latency_seconds: float = 0.0
    is_silent: bool = False
    bytes_per_second: float | None = None
    cut_bytes: int | None = None
    flips: bool = False
    is_short: bool = False


@dataclass
class HubRequest:
    """A request that came, and what is answered.

    Attributes:
        path: without the query, percent signs decoded.
        sent_bytes: of the body, so far.
    """

    method: str
    path: str
    query: str
    status: int
    authorization: str | None
    sent_bytes: int = 0


class HubServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go are what some tests are about."""


class HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections may be used again
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer({})

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        is_json = self.headers.get("Content-Type", "").startswith("application/json")
        self._answer(json.loads(body) if is_json else parse_qs(body.decode()))

    def _answer(self, form: Mapping[str, Any]) -> None:
        address = urlsplit(self.path)
        self._path, self._query = unquote(address.path), parse_qs(address.query)
        self._fault = next((fault for fault in self.hub.faults if fault.path in unquote(self.path)), Fault())
        self._wait(self._fault.latency_seconds)
        while self._fault.is_silent and self._fault in self.hub.faults and not self.hub.stopping.is_set():
            self._wait(0.02)
        if self.hub.stopping.is_set():
            self.close_connection = True
        elif self._fault.status is not None:
            after = self._fault.retry_after_seconds
            more = {} if after is None else {"Retry-After": f"{after:g}"}
            self._refuse(self._fault.status, "", "the stand-in was told to say so", more)
        elif match := _API.match(self._path):
            self._answer_api(match, form)
        elif match := FILE.fullmatch(self._path):
            self._answer_file(match["repository"], match["revision"], match["name"])
        else:
            self._refuse(404, "RepoNotFound", "Repository not found")

    def _find(self, repository: str, revision: str) -> tuple[str, Mapping[str, HubFile]] | None:
        """The commit and its files, or None and a refusal has been sent."""
        place = self.hub.repositories.get(repository)
        if place is None:  # the real hub says so too, where nobody is logged in
            self._refuse(401, "RepoNotFound", "Repository not found")
            return None
        commit = place.names.get(revision, revision)
        if commit not in place.commits:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return commit, place.commits[commit]

    def _answer_api(self, match: re.Match[str], form: Mapping[str, Any]) -> None:
        repository, what = match["repository"], match["what"]
        found = self._find(repository, match["revision"] or "main")
        if found is None:
            return
        commit, files = found
        if what == "tree":
            folder = self._path[match.end() :].strip("/")
            self._send_json(_rows(files, folder, recursive=self._query.get("recursive") in (["true"], ["True"])))
        elif what == "paths-info":
            self._send_json(
                _rows({name: files[name] for name in form["paths"] if name in files}, "", recursive=True)
            )
        else:
            details = self._query.get("blobs") in (["true"], ["True"])
            gated = "auto" if repository in self.hub.gates else False
            facts = {"id": repository, "modelId": repository, "sha": commit, "private": False, "gated": gated}
            siblings = [{"rfilename": name} | (_details(file) if details else {}) for name, file in files.items()]
            self._send_json({**facts, "tags": [], "siblings": siblings})

    def _answer_file(self, repository: str, revision: str, name: str) -> None:
        found = self._find(repository, revision)
        if found is None:
            return
        commit, files = found
        token, sent = self.hub.gates.get(repository), self.headers.get("Authorization")
        if token is not None and sent != f"Bearer {token}":
            why = "Your request to access it is awaiting review" if sent else "You must be authenticated"
            self._refuse(403 if sent else 401, "GatedRepo", f"Access to model {repository} is restricted. {why}.")
        elif name not in files:
            self._refuse(404, "EntryNotFound", "Entry not found")
        else:
            self._send_file(commit, files[name])

    def _send_file(self, commit: str, file: HubFile) -> None:
        content, size = file.content, len(file.content)
        if self._fault.flips and size:
            content = content[:-9] + bytes([content[-9:][0] ^ 64]) + content[-9:][1:]
        if self._fault.is_short and self.command == "GET":
            content = content[: size // 2]
        headers = {
            "ETag": f'"{file.sha256 if file.is_large else file.git_id}"', "X-Repo-Commit": commit,
            "Accept-Ranges": "bytes", "X-Linked-Size": str(size), "Content-Type": "application/octet-stream",
        }  # fmt: skip
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self._send(200, content, headers)
        elif int(asked[1]) >= size:
            self._send(416, b"", headers | {"Content-Range": f"bytes */{size}"})
        else:
            first, last = int(asked[1]), min(int(asked[2] or size), size - 1)
            self._send(206, content[first : last + 1], headers | {"Content-Range": f"bytes {first}-{last}/{size}"})

    def _send_json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps({"error": message}).encode()
        self._send(status, body, {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        # Noted before a client has the answer, so that one that has it finds it noted.
        authorization, query = self.headers.get("Authorization"), urlsplit(self.path).query
        request = HubRequest(self.command, self._path, query, status, authorization)
        self.hub.requests.append(request)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(memoryview(body), request)

    def _send_body(self, body: memoryview, request: HubRequest) -> None:
        rate, cut = self._fault.bytes_per_second, self._fault.cut_bytes
        end = len(body) if cut is None else min(cut, len(body))
        step = _STEP_BYTES if rate is None else max(1, int(rate / 10))
        for start in range(0, end, step):
            if self.hub.stopping.is_set():
                break
            stop = min(start + step, end)
            request.sent_bytes = stop
            self.wfile.write(body[start:stop])
            if rate is not None:
                self._wait((stop - start) / rate)
        else:
            if end == len(body):
                return
        self.close_connection = True

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self.hub.stopping.wait(seconds)


def _details(file: HubFile) -> dict[str, object]:
    size = len(file.content)
    lfs = {"sha256": file.sha256, "oid": file.sha256, "size": size, "pointerSize": 134}
    return {"size": size, "blobId": file.git_id} | ({"lfs": lfs} if file.is_large else {})


def _rows(files: Mapping[str, HubFile], folder: str, *, recursive: bool) -> list[dict[str, object]]:
    """A tree as the hub lists it: files, and without `recursive` also the folders right below."""
    start = f"{folder}/" if folder else ""
    rows: list[dict[str, object]] = []
    folders: set[str] = set()
    for name, file in files.items():
        below, _, rest = name.removeprefix(start).partition("/")
        if not name.startswith(start):
            continue
        if rest and not recursive:
            folders.add(start + below)
            continue
        rows.append({"type": "file", "path": name, "oid": file.git_id, **_details(file)})
    return rows + [{"type": "directory", "path": name, "size": 0, "oid": "0" * 40} for name in sorted(folders)]
