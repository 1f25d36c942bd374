"""The composed service under test: what an operator would type, and the ways in which its parts are broken."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.support.running_service import Client, Json

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = "darkroom-try"
PORT = 18_000
NETWORK = f"{PROJECT}_inner"


def run(
    *command: str, check: bool = True, timeout_seconds: float = 900, settings: Mapping[str, str] | None = None
) -> str:
    """The output of a command that must succeed; compose reads `settings` on top of the trial's own."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
        env={**environment(), **(settings or {})},
    )
    assert done.returncode == 0 or not check, f"{' '.join(command)}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def environment() -> dict[str, str]:
    """The settings of this trial; all else as the compose file has it."""
    own = {
        "DARKROOM_PUBLISH": f"127.0.0.1:{PORT}",
        "DARKROOM_WORKER_MEMORY": "3g",
        "DARKROOM_WORKER_CPU_THREADS": "1",
        "DOCKER_BUILDKIT": "1",
        "COMPOSE_DOCKER_CLI_BUILD": "1",
    }
    return {**os.environ, **own}


def compose(
    *words: str, extras: tuple[str, ...] = (), check: bool = True, settings: Mapping[str, str] | None = None
) -> str:
    """Compose v1 or v2, whichever is there; `extras` are the names of further files, such as `s3`."""
    paths = ("docker-compose.yml", *(f"deploy/compose.{extra}.yml" for extra in extras))
    files = [word for path in paths for word in ("--file", path)]
    program = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    return run(*program, "--project-name", PROJECT, *files, *words, check=check, settings=settings)


class Stack(Client):
    """The running stack."""

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{PORT}"
        self.http = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def up(self, workers: int, *extras: str, settings: Mapping[str, str] | None = None) -> None:
        """Start what is not running, or runs with other settings, and wait until so many workers answer."""
        words = ("up", "--detach", "--no-build", "--scale", f"worker={workers}")
        compose(*words, extras=extras, settings=settings)
        self.wait_until(lambda: len(self.live_workers()) == workers, f"{workers} workers")

    def down(self) -> None:
        """Stop and forget everything, volumes too."""
        self.http.close()
        every = {"GRAFANA_PASSWORD": "none", "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
        words = ("down", "--volumes", "--timeout", "5")
        compose(*words, extras=("monitoring", "s3"), check=False, settings=every)

    def containers(self, service: str) -> list[str]:
        """Ids of a service's running containers."""
        return compose("ps", "--quiet", service).split()

    def inspect(self, container: str) -> Json:
        """What the engine knows of a container."""
        found: Json = json.loads(run("docker", "inspect", container))[0]
        return found

    def kill_processes(self, container: str) -> None:
        """SIGKILL for all but the container's init, as the kernel's out-of-memory killer would send it."""
        run("docker", "exec", container, "sh", "-c", "kill -9 -1", check=False)

    def disconnect(self, container: str) -> None:
        """Pull the plug of the inner network."""
        run("docker", "network", "disconnect", NETWORK, container)

    def reconnect(self, container: str) -> None:
        """Put it in again."""
        run("docker", "network", "connect", NETWORK, container)

    def live_workers(self) -> list[Json]:
        """Reports of the workers that are ready, while the API answers."""
        try:
            answer = self.http.get("/v1/workers")
        except httpx.HTTPError:
            return []
        rows: list[Json] = answer.json()["data"] if answer.status_code == 200 else []
        return [row for row in rows if row["state"] in ("idle", "busy")]

    def fetch(self, job_id: str) -> Json:
        """The job as it is now; a part that is being restarted is waited for."""
        return self._patiently(lambda: self.http.get(f"/v1/jobs/{job_id}")).json()  # type: ignore[no-any-return]

    def submit_many(self, count: int, **body: Any) -> list[str]:
        """Ids of accepted jobs; a call that found nobody is made again under the same key, and so taken once."""
        ids = []
        for number in range(count):
            key = f"many-{time.monotonic_ns()}-{number}"
            wanted = {"prompt": "a red circle on a blue background", "seed": number, **body}
            answer = self._patiently(
                lambda wanted=wanted, key=key: self.http.post(  # type: ignore[misc]
                    "/v1/txt2img", json=wanted, headers={"Idempotency-Key": key}
                )
            )
            ids.append(answer.json()["id"])
        return ids

    def wait_for_all(self, ids: list[str], timeout_seconds: float = 240) -> list[Json]:
        """The jobs once all have ended."""
        return [self.wait(job_id, timeout_seconds) for job_id in ids]

    def wait_until(self, holds: Callable[[], bool], what: str, timeout_seconds: float = 600) -> None:
        """Return as soon as something holds."""
        deadline = time.monotonic() + timeout_seconds
        while not holds():
            assert time.monotonic() < deadline, f"not in time: {what}\n{compose('ps')}\n{self.logs()}"
            time.sleep(0.3)

    def logs(self) -> str:
        """The end of what all parts have said."""
        return compose("logs", "--no-color", "--tail", "15", check=False)[-6000:]

    def _patiently(self, call: Callable[[], httpx.Response]) -> httpx.Response:
        deadline = time.monotonic() + 90
        while True:
            try:
                answer = call()
            except httpx.HTTPError:
                answer = None
            if answer is not None and answer.status_code < 400:
                return answer
            # 409: the first call with this key has died, or is still being accepted.
            again = answer is None or answer.status_code in (409, 503)
            assert again, f"{answer.status_code}: {answer.text}" if answer is not None else ""
            assert time.monotonic() < deadline, "the API did not come back"
            time.sleep(0.3)
