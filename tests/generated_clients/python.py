"""openapi-python-client makes a client of the document without a warning, and requests of two fields pass mypy.

Needs `build/generators`, which `make test-clients` makes from PyPI: what the generator needs contradicts our pins.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from app.main import create_app
from app.settings import ApiSettings

ROOT = Path(__file__).parents[2]
GENERATORS = ROOT / "build" / "generators" / "bin"
USE = """
from darkroom_client.api.jobs import create_txt_2_img, get_job
from darkroom_client.client import AuthenticatedClient
from darkroom_client.models import EditRequest, Img2ImgRequest, JobView, Lora, Txt2ImgRequest

client = AuthenticatedClient(base_url="http://127.0.0.1:8000", token="KEY")
lora = Lora(name="of a catalogue that has yet to be written")
edit = EditRequest(prompt="a red circle", image="upload:1")
start = Img2ImgRequest(prompt="a red circle", image="upload:1", loras=[lora])
answer = create_txt_2_img.sync(client=client, body=Txt2ImgRequest(prompt="a red circle", seed=7))
if isinstance(answer, JobView):
    seeds: list[int | None] = [image.seed for image in answer.images]
    again = get_job.sync(answer.id, client=client)
"""


def test_a_client_is_generated_without_a_warning_and_small_requests_pass_mypy(tmp_path: Path) -> None:
    document = create_app(ApiSettings()).openapi()
    (tmp_path / "openapi.json").write_text(json.dumps(document), encoding="utf-8")
    # The generator knows neither images nor JSONL: it is told to treat them as bytes, as docs/clients.md says.
    (tmp_path / "config.yml").write_text(
        json.dumps({"content_type_overrides": overrides(document)}), encoding="utf-8"
    )
    options = [
        "--config",
        "config.yml",
        "--path",
        "openapi.json",
        "--output-path",
        "darkroom_client",
        "--meta",
        "none",
    ]

    made = subprocess.run(
        [GENERATORS / "openapi-python-client", "generate", *options, "--fail-on-warning"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{GENERATORS}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )

    assert made.returncode == 0, made.stdout + made.stderr
    (tmp_path / "use.py").write_text(USE, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file=", "--strict", "--follow-imports=silent", "use.py"]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def overrides(document: dict[str, object]) -> dict[str, str]:
    text = json.dumps(document)
    images = (f"image/{name}" for name in ("png", "jpeg", "webp", "gif", "bmp", "tiff", "avif"))
    types = (*images, "application/jsonl")
    return {media: "application/octet-stream" for media in types if f'"{media}"' in text}
