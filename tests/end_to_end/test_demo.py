"""`make demo` without its service: an image and one that starts from it, one bar, and what to do next."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from tqdm import tqdm

from cli import demo
from cli.client import ServiceError
from tests.support.running_service import RunningService


def test_a_demo_shows_one_bar_and_names_the_sheet_the_log_and_what_to_do_next(
    service: RunningService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    demo.FOLDER.mkdir()
    demo.draw_inputs()
    scenes, shown = demo.scenes_of("sdxl")[:2], io.StringIO()
    scenes[0].path.write_bytes(b"of an earlier demo, which is overwritten")

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


def test_a_demo_whose_model_cannot_be_loaded_ends_with_the_reason_instead_of_waiting() -> None:
    lines = ["preparing http://127.0.0.1:1\n", "failed http://127.0.0.1:1: m cannot be loaded: no; mend that\n"]
    with pytest.raises(ServiceError, match=r"^m cannot be loaded: no; mend that\ndemo/service.log has"):
        demo.url_of(iter([*lines, "never read"]))
    assert demo.url_of([lines[0], "ready http://127.0.0.1:1\n"]) == "http://127.0.0.1:1"
    with pytest.raises(ServiceError, match="stopped before it was ready"):
        demo.url_of(lines[:1])
