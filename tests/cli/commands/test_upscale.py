"""`darkroom upscale` and `darkroom erase` against a real API."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.main import main
from contracts.queue.client import JobQueue
from contracts.requests.plain.erasing import EraseParameters
from contracts.requests.plain.upscaling import UpscaleParameters
from tests.support.images import draw_shape


def test_an_image_is_sent_to_be_upscaled_in_the_format_of_the_files_name(
    server: str, tmp_path: Path, queue: JobQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small.png"
    draw_shape("circle", "red", "blue").save(small)
    words = ["upscale", str(small), "--server", server]

    assert main([*words, "-o", str(tmp_path / "large.webp"), "--detach"]) == 0
    assert main([*words, "-o", str(small)]) == 1
    assert main([*words, "--model", "shapes-sdxl", "--detach"]) == 1

    said = capsys.readouterr()
    parameters = queue.fetch(said.out.strip()).parameters
    assert isinstance(parameters, UpscaleParameters)
    assert (parameters.model, parameters.scale, parameters.output_format) == ("shapes-upscaler", 2, "webp")
    exists, unknown = said.err.splitlines()
    assert "exists already" in exists
    assert "shapes-upscaler" in unknown


def test_an_image_and_its_mask_are_sent_to_have_something_erased(
    server: str, tmp_path: Path, queue: JobQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    image, mask = tmp_path / "image.png", tmp_path / "mask.png"
    draw_shape("circle", "red", "blue").save(image)
    draw_shape("circle", "white", "black").save(mask)

    assert main(["erase", str(image), "--mask", str(mask), "--server", server, "--detach"]) == 0

    parameters = queue.fetch(capsys.readouterr().out.strip()).parameters
    assert isinstance(parameters, EraseParameters)
    assert (parameters.model, parameters.mask_image != parameters.image) == ("shapes-eraser", True)
