"""schemathesis, with all of its checks, finds nothing in the running service. `make fuzz` runs for much longer.

The responses that it accepts are configured in `schemathesis.toml`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cli.main import main
from tests.support.built_in import built_in_rows
from tests.support.running_service import RunningService

ROOT = Path(__file__).parents[2]
#: Cases per operation, and phases; the coverage phase, which tries all boundary values, takes a minute by itself.
EXAMPLES = os.environ.get("DARKROOM_FUZZ_EXAMPLES", "8")
PHASES = os.environ.get("DARKROOM_FUZZ_PHASES", "examples,fuzzing,stateful")
SECONDS = int(os.environ.get("DARKROOM_FUZZ_SECONDS", "10"))


def write_catalogue(folder: Path) -> Path:
    """Write the built-in catalogue with smaller images, so that no case holds up the others for long."""
    path = folder / "catalogue.toml"
    path.write_text(built_in_rows().replace("max_pixels = 65_536", "max_pixels = 9_216"), encoding="utf-8")
    return path


@pytest.fixture
def guarded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[tuple[RunningService, str]]:
    """A service that requires keys and lets few jobs wait, and a token with every scope."""
    environment = {"DARKROOM_API_LISTS_PER_MINUTE": "0", "DARKROOM_API_MAX_WAITING": "4"}
    environment |= {"DARKROOM_CATALOGUE": str(write_catalogue(tmp_path))}
    service = RunningService(tmp_path / "data", environment=environment, forked=True)
    try:
        create = ["keys", "create", "fuzz", "--scope", "generate", "--scope", "admin", "--data", str(service.data)]
        create += ["--calls-per-minute", "0", "--highest-priority", "high"]
        assert main(create) == 0
        token = capsys.readouterr().out.strip()
        while httpx.get(f"{service.url}/v1/models", trust_env=False).status_code != 401:
            time.sleep(0.1)
        yield service, token
    finally:
        service.stop()


@pytest.mark.timeout(SECONDS + 240)
def test_schemathesis_finds_nothing(guarded: tuple[RunningService, str], tmp_path: Path) -> None:
    service, key = guarded
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    options = ["--phases", PHASES, "--max-examples", EXAMPLES, "--max-time", str(SECONDS), "--continue-on-failure"]
    run = subprocess.run(
        [
            *command,
            "--config-file",
            str(ROOT / "schemathesis.toml"),
            "run",
            f"{service.url}/openapi.json",
            *options,
        ],
        cwd=tmp_path,  # it leaves files behind
        env={**os.environ, "DARKROOM_FUZZ_KEY": key, "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
    )

    print(run.stdout)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert service.http.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"}).json()["data"]
    assert "Traceback" not in service.log.read_text(errors="replace")
