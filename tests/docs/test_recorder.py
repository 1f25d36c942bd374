"""Recorded walks: what is written down is what a terminal showed, and no page is older than its walk."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.site import recorder
from docs.site.recorder import Step, Walk, as_shown, steps_of


def test_a_walk_is_recorded_as_a_terminal_shows_it(tmp_path: Path) -> None:
    walk = Walk(tmp_path, tmp_path)
    try:
        page = walk.record(
            "# Title\n\n```walk\n$ mkdir one && cd one\n$ pwd; printf '10%%\\r\\033[1m100%%\\033[0m\\n'\n"
            "$ echo first \\\n  second\n$ test -t 1 && echo on a terminal; echo dk_0123456789ab_{:a<24}\n"
            "& bash -c 'echo ready http://127.0.0.1:8000; exec sleep 600'\n"
            "```\n\nThe end.\n".format("")
        )
    finally:
        walk.close()
    shown = re.sub(r"\*\d+\.\d s", "*1.0 s", page)
    assert "```console\n$ pwd; printf" in shown
    assert "\n~/one\n100%\n```\n\n*1.0 s*\n" in shown
    assert "$ echo first \\\n>   second\nfirst second\n" in shown
    assert "on a terminal\ndk_0123456789ab_…\n" in shown
    assert "ready http://127.0.0.1:8000\n```\n\n*1.0 s until it was ready*\n" in shown
    assert shown.startswith("# Title\n")
    assert shown.endswith("The end.\n")


def test_a_line_that_is_no_step_is_refused() -> None:
    assert list(steps_of("$ a\n& b\n@ c.webp: d")) == [
        Step("run", "a"),
        Step("start", "b"),
        Step("photograph", "c.webp: d"),
    ]
    with pytest.raises(ValueError, match="a step begins with"):
        list(steps_of("ls"))


def test_what_was_written_over_is_not_shown() -> None:
    assert as_shown("\x1b[31mred\x1b[0m\r\n 50%|#\r100%|##\n\n\n\nend\n") == "red\n100%|##\n\nend"


@pytest.mark.parametrize("name", recorder.walks())
def test_a_page_has_every_step_of_its_walk_and_no_folder_of_a_machine(name: str) -> None:
    source = Path(recorder.__file__).with_name("walks") / f"{name}.md"
    folder = Path(recorder.__file__).parents[1] / "walks"
    page = (folder / f"{name}.md").read_text(encoding="utf-8")
    for block in recorder._BLOCK.findall(source.read_text(encoding="utf-8")):
        for step in steps_of(block):
            if step.kind == "photograph":
                picture, _, title = step.text.partition(": ")
                assert f"![{title}]({picture})" in page
                assert (folder / picture).stat().st_size < 200_000
            else:
                assert step.text.splitlines()[0] in page, "record the walk again: python -m docs.site.recorder"
    assert not re.search(r"/(root|home|tmp|opt|work)/", page)
