"""`deploy/hardening.py` passes what is deployed, and refuses each right, password or way out that is added."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
BASE = "deploy/kubernetes/base"


def check(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "deploy/hardening.py"), str(root)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_what_is_deployed_passes() -> None:
    done = check(ROOT)
    assert (done.returncode, done.stderr) == (0, "")


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
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    text = (tmp_path / file).read_text(encoding="utf-8")
    assert before in text
    (tmp_path / file).write_text(text.replace(before, after), encoding="utf-8")
    done = check(tmp_path)
    assert done.returncode == 1
    assert complaint in done.stderr
