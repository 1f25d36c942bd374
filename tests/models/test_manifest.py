"""The shipped weights are, bit for bit, those whose quality `make judge` has measured.

Run `make manifest` after training, and `make judge` before that is committed.
"""

import hashlib
from pathlib import Path

MODELS = Path(__file__).resolve().parents[2] / "models"
_OTHERS = ("controlnets", "loras", "ip_adapters", "image_encoders", "textual_inversions", "upscalers", "erasers")


def shipped() -> list[Path]:
    """All files of the checkpoints, ControlNets, adapters, upscalers and erasers, but their cards."""
    folders = (*MODELS.glob("shapes-*"), *(MODELS / name for name in _OTHERS))
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in files if path.suffix != ".md")


def test_every_shipped_file_is_the_one_that_was_judged() -> None:
    lines = (MODELS / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    judged = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    found = {str(path.relative_to(MODELS)): hashlib.sha256(path.read_bytes()).hexdigest() for path in shipped()}
    assert found
    assert found == judged
