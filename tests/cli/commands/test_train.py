"""`darkroom train`: a folder of images becomes a training; no worker runs it here."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from cli.commands.train import compose
from cli.main import build_parser, main
from contracts.queue.client import JobQueue
from contracts.requests.training.parameters import TrainingParameters


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (64, 64), "red").save(folder / name)
    (folder / "b.txt").write_text("a red square", encoding="utf-8")
    (folder / "notes.md").write_text("not for the service", encoding="utf-8")
    return folder


def test_a_folder_is_sent_with_its_captions(
    server: str, photos: Path, queue: JobQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(photos), "--name", "mine", "--instance-prompt", "a thing", "--rank", "4"]
    main([*words, "--sample-prompt", "a red thing", "--detach", "--server", server])
    training = queue.fetch(capsys.readouterr().out.strip()).parameters
    assert isinstance(training, TrainingParameters)
    assert [one.caption for one in training.images] == ["a thing", "a red square"]
    assert (training.settings.rank, training.sample_prompts) == (4, ("a red thing",))


def test_a_folder_with_metadata_is_sent_with_its_folders(
    server: str, tmp_path: Path, queue: JobQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("images/1.png", "conditioning/1.png"):
        (tmp_path / place).parent.mkdir()
        Image.new("RGB", (64, 64), "red").save(tmp_path / place)
    line = '{"image": "images/1.png", "conditioning_image": "conditioning/1.png", "text": "a red square"}'
    (tmp_path / "metadata.jsonl").write_text(line, encoding="utf-8")
    words = ["train", str(tmp_path), "--name", "edges", "--kind", "controlnet", "--model", "shapes-sdxl"]
    main([*words, "--detach", "--server", server])
    training = queue.fetch(capsys.readouterr().out.strip()).parameters
    assert isinstance(training, TrainingParameters)
    (pair,) = training.images
    assert (pair.caption, pair.conditioning_image) == ("a red square", pair.image)


def test_a_training_is_resumed_without_images(
    server: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ["--name", "mine", "--server", server]
    resumed = ["--resume-from", "0" * 32]
    cases = [(resumed, "you have no training"), ([str(photos), *resumed], "name either"), ([], "name either")]
    for words, said in cases:
        assert main(["train", *words, *named]) == 1
        assert said in capsys.readouterr().err


def test_only_the_given_options_are_sent(photos: Path) -> None:
    words = ["train", str(photos), "--name", "mine", "--learning-rate", "0.001"]
    assert compose(build_parser().parse_args(words)) == {"name": "mine", "learning_rate": 0.001}
    also = compose(build_parser().parse_args([*words, "--train-text-encoder"]))
    assert also == {"name": "mine", "learning_rate": 0.001, "train_text_encoder": True}


def test_what_cannot_be_sent_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(tmp_path), "--name", "mine"]) == 1
    assert "no images in this folder" in capsys.readouterr().err
    assert main(["train", str(tmp_path / "missing.zip"), "--name", "mine"]) == 1
    assert "missing.zip" in capsys.readouterr().err
