"""A stand-in for the Hugging Face hub: real HTTP on 127.0.0.1, repositories in memory, faults that a test plans.

Speaks what huggingface_hub 2.4 and diffusers 0.42 ask for: facts about repositories, revisions, trees, sizes,
files with ranges, gates. Commits stay available when `main` moves on. It has no Xet storage, and redirects to no
content network.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.hub_http import FILE, Fault, HubFile, HubHandler, HubRequest, HubServer

#: Files that the hub keeps in git itself, so that only git's id of them is known before they are fetched.
_IN_GIT = (".json", ".txt", ".md", ".py")


@dataclass
class Repository:
    commits: dict[str, dict[str, HubFile]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # branches and tags


class Hub:
    """Repositories and the server in front of them; `start` may be called again after `stop`, on the same port.

    Attributes:
        faults: may be changed at any time; requests in progress notice only that a silent one has ended.
        gates: repository → the one token that may fetch its files.
        requests: every request that has been answered.
    """

    def __init__(self, port: int = 0) -> None:
        """`port` 0 picks a free one."""
        self.port = port
        self.faults: list[Fault] = []
        self.gates: dict[str, str] = {}
        self.requests: list[HubRequest] = []
        self.repositories: dict[str, Repository] = {}
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        """What clients have as HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self, home: Path) -> dict[str, str]:
        """Return what a process needs in its environment to use this hub, with its cache in `home`."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}

    def commit(self, repository: str, files: Mapping[str, bytes | Path], branch: str = "main") -> str:
        """Replace all files of a repository, which is made if need be; returns the new commit's hash.

        Args:
            files: name in the repository → content, or a file with it; `checkpoints` and its like make them.
            branch: moves to the new commit; a tag is a branch that never moves.
        """
        read = {name: _read(name, content) for name, content in sorted(files.items())}
        place = self.repositories.setdefault(repository, Repository())
        text = "".join(f"{name} {file.git_id}\n" for name, file in read.items())
        commit = sha1(f"{len(place.commits)}\n{text}".encode()).hexdigest()
        place.commits[commit] = read
        place.names[branch] = commit
        return commit

    def head(self, repository: str, branch: str = "main") -> str:
        """Return the hash of a branch's last commit."""
        return self.repositories[repository].names[branch]

    def files(self, repository: str, revision: str = "main") -> Mapping[str, HubFile]:
        """Return a revision's files; raises KeyError for a repository or a revision that is not there."""
        place = self.repositories[repository]
        return place.commits[place.names.get(revision, revision)]

    def fetched(self, repository: str) -> dict[str, int]:
        """Return each file of which content was sent, and how many bytes."""
        total: dict[str, int] = {}
        for request in self.requests:
            match = FILE.fullmatch(request.path)
            if (
                match
                and match["repository"] == repository
                and request.status in (200, 206)
                and request.method == "GET"
            ):
                total[match["name"]] = total.get(match["name"], 0) + request.sent_bytes
        return total

    def start(self) -> str:
        """Listen; returns the URL."""
        self.stopping.clear()
        self._server = HubServer(("127.0.0.1", self.port), type("Handler", (HubHandler,), {"hub": self}))
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self.url

    def stop(self) -> None:
        """Refuse connections from now on, and cut off the answers in progress."""
        server, thread, self._server, self._thread = self._server, self._thread, None, None
        if server is None or thread is None:
            return
        self.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _read(name: str, content: bytes | Path) -> HubFile:
    data = content.read_bytes() if isinstance(content, Path) else content
    git_id = sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return HubFile(data, sha256(data).hexdigest(), git_id, not name.endswith(_IN_GIT))


@contextmanager
def serving(hub: Hub | None = None) -> Iterator[Hub]:
    """A hub that answers while the block runs."""
    hub = Hub() if hub is None else hub
    hub.start()
    try:
        yield hub
    finally:
        hub.stop()


def use_hub(monkeypatch: pytest.MonkeyPatch, hub: Hub, home: Path) -> None:
    """Have huggingface_hub in this process use the hub, with its cache in `home`.

    It reads its environment when it is imported, so its constants are replaced; child processes are to have
    `hub.environment(home)`.
    """
    from huggingface_hub import constants, hf_api

    for name, value in hub.environment(home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(hf_api.api, "endpoint", hub.url)
