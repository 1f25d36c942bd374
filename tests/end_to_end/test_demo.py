"""`make demo` without its service: an image and one that starts from it, one bar, and what to do next."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from tqdm import tqdm

from cli import demo
from tests.support.running_service import RunningService


def test_a_demo_shows_one_bar_and_names_the_sheet_the_log_and_what_to_do_next(
    service: RunningService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    demo.FOLDER.mkdir()
    demo.draw_inputs()
    scenes, shown = demo.scenes_of("sdxl")[:2], io.StringIO()

    for _ in range(2):  # images of an earlier demo are overwritten
        with tqdm(total=len(scenes), file=shown, mininterval=0) as bar:
            demo.make_all(scenes, service.url, bar)
            assert bar.n == len(scenes)
    sheet = demo.contact_sheet([scenes])
    print(demo.describe_result(sheet, len(scenes), 9.0))

    printed = capsys.readouterr()
    assert printed.err == ""
    for named in ("2 images", "demo/contact-sheet.png", "demo/service.log", "darkroom up", "darkroom generate"):
        assert named in printed.out
    assert "sdxl-img2img" in shown.getvalue()
    with Image.open(sheet) as image:
        assert image.width > 2 * demo.SIDE
