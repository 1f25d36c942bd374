"""The file `.env` of the current folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.env_file import load_env_file
from cli.main import main


def test_the_file_sets_what_the_environment_lacks(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(
        '# ours\nDARKROOM_DATA=/srv\nexport HF_TOKEN="a b"\n'
        "DARKROOM_CATALOGUE=x.toml\nPATH=/nowhere\nDARKROOM_WORKER_T5=\n",
        encoding="utf-8",
    )
    environ = {"DARKROOM_CATALOGUE": "own.toml", "DARKROOM_DATA": "", "PATH": "/bin"}
    assert load_env_file(environ, file) == {"DARKROOM_DATA", "HF_TOKEN"}
    assert environ == {
        "DARKROOM_CATALOGUE": "own.toml",
        "DARKROOM_DATA": "/srv",
        "HF_TOKEN": "a b",
        "PATH": "/bin",
    }


def test_commands_read_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_SERVER", "")  # restored after the test
    (tmp_path / ".env").write_text("DARKROOM_SERVER=http://127.0.0.1:9\n", encoding="utf-8")
    assert main(["jobs", "list"]) == 1
    assert capsys.readouterr().err.startswith("darkroom: http://127.0.0.1:9 does not answer")


def test_a_file_that_is_not_text_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_bytes(b"DARKROOM_DATA=\xff\xfe\n")
    assert main(["settings"]) == 1
    assert capsys.readouterr().err == "darkroom: .env is not text in UTF-8; write NAME=value, one a line\n"
