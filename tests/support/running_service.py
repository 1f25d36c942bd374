"""A running service for tests: `darkroom up` as a child process, and the few calls that every test makes."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from tests.support.forked_programs import ForkedProgram

Json = dict[str, Any]
READY_SECONDS = 240.0


class Client:
    """The few calls that every test makes.

    Attributes:
        http: to the service, whichever way it runs.
    """

    http: httpx.Client

    def submit(self, task: str, **body: Any) -> Json:
        """An accepted job."""
        response = self.http.post(f"/v1/{task}", json={"prompt": "a red circle on a blue background", **body})
        assert response.status_code == 202, response.text
        job: Json = response.json()
        assert response.headers["location"].endswith(f"/v1/jobs/{job['id']}")
        return job

    def fetch(self, job_id: str) -> Json:
        """The job as it is now."""
        job: Json = self.http.get(f"/v1/jobs/{job_id}").raise_for_status().json()
        return job

    def wait(self, job_id: str, timeout_seconds: float = 120) -> Json:
        """The job once it has ended."""
        deadline, pause_seconds = time.monotonic() + timeout_seconds, 0.03
        while time.monotonic() < deadline:
            job = self.fetch(job_id)
            if job["status"] in ("completed", "failed", "cancelled"):
                return job
            time.sleep(pause_seconds)
            pause_seconds = min(0.5, 1.3 * pause_seconds)  # each question takes processor time from the service
        raise AssertionError(f"job {job_id} did not end: {job}")

    def run(self, task: str, **body: Any) -> Json:
        """A completed job."""
        job = self.wait(self.submit(task, **body)["id"])
        assert job["status"] == "completed", job
        return job

    def bytes_of(self, job: Json, index: int = 0) -> bytes:
        """The bytes of one of a job's images."""
        return self.http.get(job["images"][index]["url"]).raise_for_status().content

    def image_of(self, job: Json, index: int = 0) -> Image.Image:
        """One of a job's images, decoded."""
        return Image.open(io.BytesIO(self.bytes_of(job, index)))

    def generate(self, task: str, **body: Any) -> Image.Image:
        """The one image of a completed job, as RGB."""
        return self.image_of(self.run(task, **body)).convert("RGB")


class RunningService(Client):
    """`darkroom up` on a free port, with a data folder of its own."""

    def __init__(
        self, data: Path, *options: str, environment: Mapping[str, str] | None = None, forked: bool = False
    ) -> None:
        """Start it.

        Args:
            forked: fork all of its processes from one that has imported their modules, instead of executing
                Python for each, which takes ten seconds of processor time.
        """
        self.data = data
        words = ["up", "--port", "0", "--data", str(data), *options]
        self.log = data.parent / f"{data.name}.log"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
        given = {**clean, "DARKROOM_WORKER_CPU_THREADS": "1", **(environment or {})}
        reader, writer = os.pipe()
        self._output = os.fdopen(reader, encoding="utf-8")
        with self.log.open("wb") as log, os.fdopen(writer, "wb") as output:
            start = _fork if forked else _execute
            self.process = start(words, given, output.fileno(), log.fileno())
        self.url = self._wait_until_ready()
        self.http = httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    def _wait_until_ready(self) -> str:
        watchdog = threading.Timer(READY_SECONDS, self.process.kill)
        watchdog.start()
        try:
            for line in self._output:
                if line.startswith("ready "):
                    return line.split()[1]
        finally:
            watchdog.cancel()
        raise AssertionError("the service was not ready in time:\n" + self.log.read_text(errors="replace")[-3000:])

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait_for_end()

    def wait_for_end(self) -> int:
        """The exit status of a service that is ending."""
        try:
            return self.process.wait(90)
        finally:
            self.http.close()
            self._output.close()


def _execute(words: list[str], environment: dict[str, str], stdout: int, stderr: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "cli.main", *words]
    return subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment, start_new_session=True)


def _fork(words: list[str], environment: dict[str, str], stdout: int, stderr: int) -> ForkedProgram:
    return ForkedProgram("tests.support.forked_service", environment, words=words, stdout=stdout, stderr=stderr)
