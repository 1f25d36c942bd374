"""`darkroom preprocess` against a real API."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from cli.main import main
from tests.support.images import draw_shape


def test_a_photo_becomes_a_control_image_in_a_file(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, edges = tmp_path / "photo.jpg", tmp_path / "new" / "edges.png"
    draw_shape("circle", "red", "blue").save(photo)
    words = ["preprocess", str(photo), "--server", server]

    assert main([*words, "canny:low_threshold=20,high_threshold=40,resolution=128", "-o", str(edges)]) == 0
    assert main([*words, "canny", "-o", str(edges)]) == 1
    assert main([*words, "canny", "-o", str(tmp_path / "edges.jpg")]) == 1
    assert main([*words, "canny:low_threshold=0", "-o", str(tmp_path / "b.png")]) == 1

    said = capsys.readouterr()
    assert said.out == f"{edges}\n"
    with Image.open(edges) as image:
        assert (image.format, image.size) == ("PNG", (128, 128))
        assert {value for _, value in image.convert("L").getcolors() or ()} == {0, 255}
    exists, suffix, bounds = said.err.splitlines()
    assert "exists already" in exists
    assert "name it" in suffix
    assert "within 1–255" in bounds
