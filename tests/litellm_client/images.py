"""The unmodified `litellm` generates and edits images, and raises its own exception where a field is refused.

Needs `build/litellm`, which `make test-clients` makes from PyPI.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.images import encode_image, mask_with_hole, solid_image
from tests.support.running_service import RunningService

ROOT = Path(__file__).parents[2]
CALLS = """
import base64, sys
import litellm

where = {"model": "openai/shapes-sdxl", "api_base": sys.argv[1], "api_key": "none"}
prompt = "a red circle on a blue background"
answer = litellm.image_generation(prompt=prompt, n=2, size="64x96", quality="low", user="u-1", **where)
assert [base64.b64decode(datum.b64_json)[:4] for datum in answer.data] == [b"\\x89PNG"] * 2
assert answer.size == "64x96"
print("image_generation: ok")
seeded = {"seed": 7, "allowed_openai_params": ["seed"]}
first, second = (litellm.image_generation(prompt=prompt, **seeded, **where).data[0].b64_json for _ in range(2))
assert first == second
print("seed: ok")
with open("image.png", "rb") as image, open("mask.png", "rb") as mask:
    edited = litellm.image_edit(image=image, mask=mask, prompt="a red square", size="64x64", **where)
    assert edited.data[0].b64_json
    image.seek(0)
    assert litellm.image_edit(image=[image], prompt=prompt, **where).data[0].b64_json
print("image_edit: ok")
try:
    litellm.image_generation(prompt=prompt, background="transparent", **where)
except litellm.BadRequestError as error:
    assert "background: must be one of 'auto' or 'opaque'" in str(error), error
    print("refused field: ok")
"""


def test_litellm_generates_edits_and_reads_errors(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(encode_image(solid_image("blue")))
    (tmp_path / "mask.png").write_bytes(encode_image(mask_with_hole()))
    service = RunningService(tmp_path / "data")
    try:
        run = subprocess.run(
            [ROOT / "build/litellm/bin/python", "-c", CALLS, f"{service.url}/v1"],
            cwd=tmp_path,
            # Without the map it would fetch prices from another host first.
            env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=240,
        )
    finally:
        service.stop()

    assert run.returncode == 0, run.stdout + run.stderr
    checks = [line for line in run.stdout.splitlines() if line.endswith(": ok")]
    assert checks == ["image_generation: ok", "seed: ok", "image_edit: ok", "refused field: ok"]
