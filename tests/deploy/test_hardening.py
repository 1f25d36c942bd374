"""`deploy/hardening.py` passes what is deployed, and refuses each right, password or way out that is added."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
BASE = "deploy/kubernetes/base"


PROGRAM = ROOT / "deploy/hardening.py"
check = runpy.run_path(str(PROGRAM))["check"]


@pytest.mark.parametrize("image", ["darkroom-api", "api"])
def test_the_command_fails_where_there_is_a_problem_and_prints_it(image: str, tmp_path: Path) -> None:
    service = {"cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"], "read_only": True, "image": image}
    (tmp_path / "docker-compose.yml").write_text(json.dumps({"services": {"api": service}}), encoding="utf-8")
    command = [sys.executable, str(PROGRAM), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    complaint = "docker-compose.yml: api: its image must come from a variable"
    is_right = image == "darkroom-api"
    assert (done.returncode, done.stderr.startswith(complaint)) == (int(not is_right), not is_right)


def test_what_is_deployed_passes() -> None:
    assert check(ROOT) == []


@pytest.mark.parametrize(
    ("file", "before", "after", "complaint"),
    [
        ("docker-compose.yml", "  cap_drop: [ALL]\n", "", "secrets: must drop all"),
        ("docker-compose.yml", "    network_mode: none", "    cap_add: [CHOWN]", "secrets: must drop"),
        ("docker-compose.yml", '  security_opt: ["no-new-privileges:true"]\n', "", "api: must not gain"),
        ("docker-compose.yml", "  read_only: true\n", "", "worker: its root must be read-only"),
        ("docker-compose.yml", ",size=256m", "", "dispatcher: a tmpfs must have a size"),
        ("docker-compose.yml", "${REDIS_IMAGE:-redis:7-bookworm}", "redis:7", "redis: its image must"),
        ("deploy/compose.s3.yml", "${AWS_SECRET_ACCESS_KEY:?", "${AWS_SECRET_ACCESS_KEY:-", "_PASSWORD"),
        ("deploy/compose.monitoring.yml", ":?choose", ":-choose", "GF_SECURITY"),
        ("deploy/compose.hub.yml", "HF_TOKEN_PATH: /run/secrets/hf_token", "HF_TOKEN: hf_x", "HF_TOKEN must be"),
        (f"{BASE}/api.yaml", "capabilities: {drop: [ALL]}", "privileged: false", "container api must drop all"),
        (f"{BASE}/worker.yaml", "{medium: Memory, sizeLimit: 256Mi}", "{}", "volume tmp must have a size"),
        (f"{BASE}/redis.yaml", "readOnlyRootFilesystem: true, ", "", "container redis must be read-only"),
        (f"{BASE}/network.yaml", "except: [169.254.0.0/16]", "except: []", "worker: lets the pods reach 169"),
        (f"{BASE}/network.yaml", '"fd00:ec2::/32", ', "", "reach fd00:ec2::254"),
        (f"{BASE}/network.yaml", "[Ingress, Egress]", "[Ingress]", "dispatcher: must say"),
        ("deploy/kubernetes/fetch/network.yaml", "169.254.0.0/16, ", "", "api-fetch: lets"),
    ],
)  # fmt: skip
def test_what_weakens_a_deployment_is_refused(
    file: str, before: str, after: str, complaint: str, tmp_path: Path
) -> None:
    for name in {"docker-compose.yml", file}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    text = (tmp_path / file).read_text(encoding="utf-8")
    assert before in text
    (tmp_path / file).write_text(text.replace(before, after), encoding="utf-8")
    assert complaint in "\n".join(check(tmp_path))
