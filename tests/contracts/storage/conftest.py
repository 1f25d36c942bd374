"""An S3 server on loopback that checks signatures: rclone, over a folder."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from contracts.storage import Storage
from contracts.storage.bucket import BucketStorage
from contracts.storage.local import LocalStorage

ACCESS_KEY, SECRET_KEY = "AKIADARKROOMTESTS000", "darkroom-tests-secret-of-some-length-000"


@dataclass(frozen=True)
class S3Server:
    """Where it listens; it has one bucket, `darkroom`."""

    endpoint: str

    def environment(self) -> dict[str, str]:
        """What a client of it has in its environment."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
        }


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for the whole run."""
    root = tmp_path_factory.mktemp("s3")
    (root / "darkroom").mkdir()  # before it starts: it looks for new folders every few minutes only
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    program = Path(sys.executable).with_name("rclone")
    command = [str(program if program.exists() else shutil.which("rclone")), "serve", "s3"]
    command += [
        "--config",
        "",
        "--auth-key",
        f"{ACCESS_KEY},{SECRET_KEY}",
        "--addr",
        f"127.0.0.1:{port}",
        str(root),
    ]
    with (root.parent / "rclone.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_for(port)
        yield S3Server(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, "the S3 server did not start"
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def bucket(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BucketStorage:
    """A bucket, empty below a prefix."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return BucketStorage(f"s3://darkroom/{tmp_path.name}")


@pytest.fixture(params=["local", "bucket"])
def any_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Each kind of storage, empty."""
    if request.param == "local":
        return LocalStorage(tmp_path / "local")
    storage: BucketStorage = request.getfixturevalue("bucket")
    return storage
