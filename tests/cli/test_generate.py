"""From words on the command line to a request, without a service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli.client import Client, ServiceError
from cli.generate import compose
from cli.main import build_parser, main


def composed(*words: str) -> tuple[str, dict[str, Any]]:
    return compose(build_parser().parse_args(["generate", *words]))


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "a.png"
    path.write_bytes(b"bytes")
    return str(path)


def test_only_what_was_said_is_sent() -> None:
    assert composed("a red circle") == ("txt2img", {"prompt": "a red circle"})
    assert composed("a red circle", "--seed", "0", "--steps", "4", "--lora", "style:0.5", "--lora", "other")[
        1
    ] == {
        "prompt": "a red circle",
        "seed": 0,
        "num_inference_steps": 4,
        "loras": [{"name": "style", "scale": 0.5}, {"name": "other", "scale": 1.0}],
    }


def test_the_pictures_choose_the_task(picture: str) -> None:
    assert composed("x", "--image", picture)[0] == "img2img"
    assert composed("x", "--image", picture, "--mask", picture)[0] == "inpaint"
    task, body = composed("x", "--control", f"edges={picture}", "--image", picture)
    assert task == "controlnet"
    assert body["controls"][0]["controlnet"] == "edges"
    assert body["image"] == body["controls"][0]["image"] == "data:application/octet-stream;base64,Ynl0ZXM="


@pytest.mark.parametrize(
    "words", [("--lora", "a:b"), ("--control", "edges"), ("--image", "/nothing.png")], ids=lambda words: words[0]
)
def test_a_word_that_cannot_be_read_is_one_line_and_a_failure(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "x", *words, "--server", "http://127.0.0.1:9"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("darkroom: ")
    assert said.count("\n") == 1


def test_a_service_that_is_not_there_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--server", "http://127.0.0.1:9"]) == 1
    assert "http://127.0.0.1:9 does not answer" in capsys.readouterr().err


def test_a_client_that_is_not_answered_raises_its_own_error() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(ServiceError, match="does not answer"):
        client.fetch("nothing")


def test_the_settings_of_both_sides_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0
    listed = capfd.readouterr().out
    for name in (
        "DARKROOM_REDIS_URL",
        "DARKROOM_QUEUE_LEASE_SECONDS",
        "DARKROOM_API_PORT",
        "DARKROOM_WORKER_DEVICE",
    ):
        assert name in listed


@pytest.mark.parametrize("command", ["up", "generate", "models", "settings", "api", "worker"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert "usage: darkroom" in capsys.readouterr().out
