"""Requests composed from the command line, without a service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli.client import Client, ServiceError
from cli.commands.generate import compose
from cli.main import build_parser, main
from contracts.requests.schema import REQUESTS


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


def test_a_class_takes_the_place_of_the_prompt() -> None:
    assert compose_from("--class-label", "207")[1] == {"class_label": 207}
    assert compose_from("--class-label", "golden retriever")[1] == {"class_label": "golden retriever"}
    with pytest.raises(ServiceError, match="with a prompt, or for models such as DiT with --class-label"):
        compose_from("--seed", "7")


def test_the_images_select_the_task(image: str) -> None:
    assert compose_from("x", "--image", image)[0] == "img2img"
    assert compose_from("x", "--image", image, "--mask", image)[0] == "inpaint"
    task, body = compose_from("x", "--control", f"edges={image}", "--image", image)
    assert task == "controlnet"
    assert body["controls"][0]["controlnet"] == "edges"
    assert compose_from("x", "--reference", image, "--reference", image)[0] == "edit"
    _, edit = compose_from("x", "--reference", image, "--image", image, "--mask", image)
    assert edit["references"] == [edit["image"]] == [edit["mask_image"]]
    assert body["image"] == body["controls"][0]["image"] == "data:application/octet-stream;base64,Ynl0ZXM="


def test_a_control_may_have_a_mode(image: str) -> None:
    _, body = compose_from("x", "--control", f"union:2={image}")
    assert (body["controls"][0]["controlnet"], body["controls"][0]["mode"]) == ("union", 2)
    with pytest.raises(ServiceError, match="CONTROLNET:MODE=FILE with a number"):
        compose_from("x", "--control", f"union:depth={image}")


def test_photos_become_control_images_by_a_preprocessor(image: str) -> None:
    _, body = compose_from("x", "--control", f"edges={image}", "--preprocess", "canny")

    assert body["controls"][0]["preprocess"] == "canny"
    _, tuned = compose_from("x", "--control", f"edges={image}", "--preprocess", "blur:sigma=2.5,resolution=64")
    assert tuned["controls"][0]["preprocess_options"] == {"sigma": 2.5, "resolution": 64}
    with pytest.raises(ServiceError, match="sigma:2"):
        compose_from("x", "--control", f"edges={image}", "--preprocess", "blur:sigma:2")
    with pytest.raises(ServiceError, match="--control"):
        compose_from("x", "--preprocess", "canny")


def test_reference_images_of_one_name_and_scale_go_together(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(b"bytes")
    names = ("look:0.6", "look:0.6", "faces")
    _, body = compose_from("x", *(word for name in names for word in ("--ip-adapter", f"{name}={image}")))
    entries = [(entry["name"], entry["scale"], len(entry["images"])) for entry in body["ip_adapters"]]
    assert entries == [("look", 0.6, 2), ("faces", 1.0, 1)]


@pytest.mark.parametrize(
    "words",
    [
        ("--lora", "a:b"),
        ("--control", "edges"),
        ("--ip-adapter", "look"),
        ("--ip-adapter", "look:x=/nothing.png"),
        ("--image", "/nothing.png"),
    ],
    ids=lambda words: words[0],
)
def test_an_invalid_argument_prints_one_line_and_fails(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "x", *words, "--server", "http://127.0.0.1:9"]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("darkroom: ")
    assert printed.count("\n") == 1


def test_every_field_of_a_request_that_a_client_may_set_has_an_option() -> None:
    given_otherwise = {
        "prompt",
        "task",
        "image",
        "mask_image",
        "control_image",
        "references",
        "loras",
        "controls",
        "ip_adapters",
        "textual_inversions",
    }
    # For a client that polls and downloads images.
    meaningless = {"response_format", "cancel_on_disconnect", "check_step"}
    fields = {name for request in REQUESTS.values() for name in request.model_fields}
    options = vars(build_parser().parse_args(["generate", "x"]))
    assert fields - given_otherwise - meaningless <= options.keys()

    _, body = compose_from(
        "x", "--priority", "low", "--original-size", "1024,768", "--batchable", "false", "--true-cfg-scale", "2.5",
        "--guidance-kind", "slg:layers=7+8,scale=2.5",
        "--webhook", "https://a.example", "--metadata", "a=b", "--metadata", "c=d=e",
    )  # fmt: skip
    assert body == {
        "prompt": "x", "priority": "low", "original_size": [1024, 768], "batchable": False, "true_cfg_scale": 2.5,
        "guidance": {"kind": "slg", "layers": [7, 8], "scale": 2.5},
        "webhook": {"url": "https://a.example"}, "metadata": {"a": "b", "c": "d=e"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--steps", "0"), "--steps/--num-inference-steps: must be 1 to 200, got 0"),
        (("--seed", "x"), "--seed: must be a whole number, got 'x'"),
        (("--strength", "0"), "--strength: must be more than 0 to 1, got 0.0"),
        (("--speed", "slow"), "--speed: must be one of exact, fast, got 'slow'"),
        (("--metadata", "x"), "--metadata: must be NAME=VALUE, got 'x'"),
        (("--nonsense",), "unrecognized arguments: --nonsense"),
    ],
)
def test_an_option_that_cannot_be_sent_is_refused_in_one_line_with_what_is_allowed(
    words: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["generate", "x", *words])
    printed = capsys.readouterr().err
    assert ended.value.code == 2
    assert complaint in printed
    assert printed.count("\n") == 1


def test_the_name_of_the_file_chooses_the_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert "output_format" not in compose_from("x", "-o", "a.png")[1]
    assert compose_from("x", "-o", "a.JPG")[1]["output_format"] == "jpeg"
    assert compose_from("x", "-o", "a.webp", "--format", "webp")[1]["output_format"] == "webp"
    for words in (("-o", "a.gif"), ("-o", "a.png", "--format", "jpeg"), ("-o", "a.jpg", "--format", "webp")):
        with pytest.raises(ServiceError):
            compose_from("x", *words)


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("darkroom ")


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


@pytest.mark.parametrize(
    "command", ["up", "check", "generate", "jobs", "models", "settings", "hub", "api", "worker"]
)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert "usage: darkroom" in capsys.readouterr().out
