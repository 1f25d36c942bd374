"""`darkroom loras` against a real API."""

from __future__ import annotations

import pytest

from cli.main import main
from contracts.settings import BUILT_IN_CATALOGUE

LORAS = BUILT_IN_CATALOGUE.parent / "loras"


def test_a_file_is_added_listed_and_removed(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--server", server]
    path = LORAS / "shapes-sdxl-crescent.safetensors"
    assert main(["loras", "add", str(path), "--name", "moon", *words]) == 0
    added = capsys.readouterr()
    assert added.out == "moon\n"
    assert "sdxl" in added.err
    assert "text encoders; visible to all" in added.err

    assert main(["loras", "list", *words]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["moon"].split(maxsplit=1)[1] == "sdxl   peft, rank 16, text encoders"
    assert "kohya, rank 8" in lines["shapes-sdxl-stripes"]

    assert main(["loras", "remove", "moon", *words]) == 0
    assert main(["loras", "list", *words]) == 0
    assert "moon" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["add", str(LORAS / "bad" / "truncated.safetensors")], "truncated"),
        (["add", "/nothing.safetensors"], "No such file"),
        (["remove", "nobodys"], "LoRA 'nobodys' does not exist"),
        (["remove", "shapes-sdxl-tint"], "catalogue file"),
    ],
)
def test_an_invalid_command_prints_one_line_and_fails(
    server: str, capsys: pytest.CaptureFixture[str], words: list[str], reason: str
) -> None:
    assert main(["loras", *words, "--server", server]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert reason in printed.err
