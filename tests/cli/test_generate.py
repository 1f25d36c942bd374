"""Requests composed from the command line, without a service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli.client import Client, ServiceError
from cli.generate import compose
from cli.main import build_parser, main


def compose_from(*words: str) -> tuple[str, dict[str, Any]]:
    return compose(build_parser().parse_args(["generate", *words]))


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "a.png"
    path.write_bytes(b"bytes")
    return str(path)


def test_only_the_given_options_are_sent() -> None:
    assert compose_from("a red circle") == ("txt2img", {"prompt": "a red circle"})
    assert compose_from("a red circle", "--seed", "0", "--steps", "4", "--lora", "style:0.5", "--lora", "other")[
        1
    ] == {
        "prompt": "a red circle",
        "seed": 0,
        "num_inference_steps": 4,
        "loras": [{"name": "style", "scale": 0.5}, {"name": "other", "scale": 1.0}],
    }


def test_the_images_select_the_task(image: str) -> None:
    assert compose_from("x", "--image", image)[0] == "img2img"
    assert compose_from("x", "--image", image, "--mask", image)[0] == "inpaint"
    task, body = compose_from("x", "--control", f"edges={image}", "--image", image)
    assert task == "controlnet"
    assert body["controls"][0]["controlnet"] == "edges"
    assert body["image"] == body["controls"][0]["image"] == "data:application/octet-stream;base64,Ynl0ZXM="


@pytest.mark.parametrize(
    "words", [("--lora", "a:b"), ("--control", "edges"), ("--image", "/nothing.png")], ids=lambda words: words[0]
)
def test_an_invalid_argument_prints_one_line_and_fails(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "x", *words, "--server", "http://127.0.0.1:9"]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("darkroom: ")
    assert printed.count("\n") == 1


def test_an_unreachable_service_is_reported_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--server", "http://127.0.0.1:9"]) == 1
    assert "http://127.0.0.1:9 does not answer" in capsys.readouterr().err


def test_a_client_without_an_answer_raises_a_service_error() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(ServiceError, match="does not answer"):
        client.fetch("nothing")


def test_the_settings_of_api_and_worker_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0
    listed = capfd.readouterr().out
    for name in (
        "DARKROOM_REDIS_URL",
        "DARKROOM_QUEUE_LEASE_SECONDS",
        "DARKROOM_API_PORT",
        "DARKROOM_WORKER_DEVICE",
        "HF_TOKEN",
    ):
        assert name in listed


@pytest.mark.parametrize("command", ["up", "generate", "models", "settings", "hub", "api", "worker"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert "usage: darkroom" in capsys.readouterr().out
