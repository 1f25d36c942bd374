"""`deploy/pin-images` asks registries for the digests of the base images; here, one on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = ("GRAFANA_IMAGE", "MINIO_IMAGE", "PROMETHEUS_IMAGE", "PYTHON_IMAGE", "REDIS_IMAGE")
DIGEST = "sha256:" + "ab" * 32


class Registry(BaseHTTPRequestHandler):
    """Gives a token to everybody, and knows every image but `missing`."""

    def do_HEAD(self) -> None:
        address = self.headers["Host"]
        if self.headers["Authorization"] != "Bearer anybody":
            self.send_response(401)
            self.send_header("WWW-Authenticate", f'Bearer realm="http://{address}/token",scope="pull"')
        elif "/missing/" in self.path:
            self.send_response(404)
        else:
            self.send_response(200)
            self.send_header("Docker-Content-Digest", DIGEST)
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/token?scope=pull" else 400)
        self.end_headers()
        self.wfile.write(b'{"token": "anybody"}')

    def log_message(self, format: str, *values: object) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def pin(images: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "deploy/pin-images"), *options]
    environment = {**os.environ, **images, "no_proxy": "127.0.0.1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_every_base_image_is_printed_with_its_digest(address: str) -> None:
    images = {name: f"{address}/{name.lower()}:1.2" for name in NAMES}
    done = pin(images)
    assert done.stdout.splitlines() == [f"{name}={images[name]}@{DIGEST}" for name in NAMES], done.stderr
    again = pin(dict(line.split("=", 1) for line in done.stdout.splitlines()))
    assert again.stdout == done.stdout, "pinned images are pinned to what their tag is now"
    assert f"{{name: {address}/redis_image, digest: '{DIGEST}'}}" in pin(images, "--kustomize").stdout


def test_where_one_image_is_unknown_none_is_printed(address: str) -> None:
    images = dict.fromkeys(NAMES, f"{address}/image:1.2") | {"REDIS_IMAGE": f"{address}/missing:7"}
    done = pin(images)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{address}/missing:7" in done.stderr


def test_the_images_of_the_dockerfile_and_of_kubernetes_are_those_that_are_pinned() -> None:
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "ARG PYTHON_IMAGE=python:3.11-slim-bookworm" in dockerfile
    assert "${PYTHON_IMAGE:-python:3.11-slim-bookworm}" in compose
    redis = (ROOT / "deploy/kubernetes/base/redis.yaml").read_text(encoding="utf-8")
    assert "image: redis:7-bookworm" in redis
    assert "${REDIS_IMAGE:-redis:7-bookworm}" in compose
