"""Records a walk: runs the commands of `docs/site/walks/NAME.md` on a terminal, and writes what they printed.

`python -m docs.site.recorder NAME…` writes `docs/walks/NAME.md` with the seconds that each command took. A walk is
Markdown whose blocks of `walk` have commands (`$`), services that go on until its end (`&`), and photographs of
Darkroom's page (`@ file: title`). Needs the repository's own history, and Chromium for photographs.
"""

from __future__ import annotations

import argparse
import io
import os
import pty
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image

_SOURCES = Path(__file__).with_name("walks")
_ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```walk\n(.*?)^```\n", re.M | re.S)
_SECONDS = 1800
_READY_SECONDS = 300
_STOP_SECONDS = 60
#: What terminals do with colors and lines, and pip's words about its own index.
_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")
_PIP = re.compile(r"^(WARNING|\[notice\]).*\n?", re.M)
#: What differs between two recordings, and what stands for it.
_NEUTRAL = (
    (re.compile(r"\b20\d\d-\d\d-\d\d([T ])\d\d:\d\d:\d\d(\.\d+)?"), r"2026-01-01\g<1>12:00:00"),
    (re.compile(r"\b20\d\d-\d\d-\d\d\b"), "2026-01-01"),
    (re.compile(r"^date: .* GMT$", re.M), "date: Thu, 01 Jan 2026 12:00:00 GMT"),
    (re.compile(r"^\d\d:\d\d:\d\d\b", re.M), "12:00:00"),
    (re.compile(r"\b(dk_[0-9a-f]{12})_[\w-]{20,}"), r"\1_…"),
    (re.compile(r"\bwhsec_[\w+/=-]{8,}"), "whsec_…"),
    (re.compile(r"signature=[\w-]{16,}"), "signature=…"),
)
_WINDOW = (1280, 900)


class Step(NamedTuple):
    """A step of a walk: `run`, `start` or `photograph`, and its text."""

    kind: str
    text: str


def steps_of(block: str) -> Iterator[Step]:
    """Yield the steps of a block; a line that ends with a backslash goes on in the next one."""
    kinds = {"$": "run", "&": "start", "@": "photograph"}
    for line in re.split(r"(?<!\\)\n", block.rstrip("\n")):
        if line.strip():
            if line[:2] not in {f"{mark} " for mark in kinds}:
                raise ValueError(f"a step begins with one of {' '.join(kinds)}, got {line!r}")
            yield Step(kinds[line[0]], line[2:])


def as_shown(output: str) -> str:
    """What a terminal shows in the end: lines that were written over have their last text, without colors."""
    text = _CONTROLS.sub("", output.replace("\r\n", "\n"))
    text = "\n".join(_last(line) for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", _PIP.sub("", text)).strip("\n")


def _last(line: str) -> str:
    parts = [part for part in line.split("\r") if part.strip()]
    return parts[-1].rstrip() if parts else ""


class Walk:
    """One recording: a folder that is home and working directory, and what was started in it."""

    def __init__(self, home: Path, pictures: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = listener.getsockname()[1]
        self._home, self._folder, self._pictures = home, home, pictures
        self._started: list[tuple[subprocess.Popen[bytes], int]] = []
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
        self._environment = {
            **clean,
            "HOME": str(home),
            "DARKROOM_SERVER": f"http://127.0.0.1:{self._port}",
            "TERM": "xterm",
            "NO_COLOR": "1",
            "COLUMNS": "100",
            "CHECKOUT": str(_ROOT),
        }

    def record(self, source: str) -> str:
        """Do all steps; returns the page."""
        return _BLOCK.sub(lambda found: "".join(map(self._do, steps_of(found[1]))), source)

    def close(self) -> None:
        """End what was started."""
        for process, _ in self._started:
            process.terminate()
        for process, terminal in self._started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
            process.kill()
            process.wait()
            os.close(terminal)

    def _do(self, step: Step) -> str:
        sys.stderr.write(f"{step.text}\n")
        begun = time.monotonic()
        if step.kind == "photograph":
            return self._photograph(step.text)
        shown = self._start(step.text) if step.kind == "start" else self._run(step.text)
        seconds = time.monotonic() - begun
        prompt = "\n".join(
            f"{'$' if not number else '>'} {line}" for number, line in enumerate(step.text.split("\n"))
        )
        took = f"{seconds:.1f} s until it was ready" if step.kind == "start" else f"{seconds:.1f} s"
        return f"```console\n{prompt}\n{shown}".rstrip("\n") + f"\n```\n\n*{took}*\n\n"

    def _run(self, command: str) -> str:
        process, terminal = self._launch(f"{command}\nstatus=$?; pwd > {self._home}/.cwd; exit $status")
        output = _read(terminal, partial(_has_ended, process), _SECONDS)
        os.close(terminal)
        self._folder = Path((self._home / ".cwd").read_text(encoding="utf-8").strip())
        return self._neutral(as_shown(output))

    def _start(self, command: str) -> str:
        process, terminal = self._launch(f"exec {command}")
        self._started.append((process, terminal))
        output = _read(terminal, lambda text: "ready http" in text or process.poll() is not None, _READY_SECONDS)
        # What it goes on to write is read, or it would wait for that once the terminal is full.
        threading.Thread(target=_drain, args=(terminal,), daemon=True).start()
        return self._neutral(as_shown(output))

    def _launch(self, command: str) -> tuple[subprocess.Popen[bytes], int]:
        """Run a command on a terminal of its own; the service listens on a free port instead of 8000."""
        command = command.replace("127.0.0.1:8000", f"127.0.0.1:{self._port}")
        command = re.sub(r"\bdarkroom up\b", f"darkroom up --port {self._port}", command)
        ours, theirs = pty.openpty()
        virtual = self._folder / ".venv" / "bin"
        process = subprocess.Popen(  # noqa: S603  # the commands of our own pages
            ["bash", "-c", command],  # noqa: S607
            cwd=self._folder,
            env={**self._environment, "PATH": f"{virtual}:{self._environment['PATH']}"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        return process, ours

    def _photograph(self, text: str) -> str:
        name, _, title = text.partition(": ")
        browser = os.environ.get("CHROMIUM") or shutil.which("chromium")
        if browser is None:
            raise RuntimeError("photographs need Chromium: apt-get install chromium, or CHROMIUM=/path/to/it")
        picture = self._home / "page.png"
        subprocess.run(  # noqa: S603  # our own page
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             f"--screenshot={picture}", f"--window-size={_WINDOW[0]},{_WINDOW[1]}", "--virtual-time-budget=8000",
             "--timeout=20000",  # while a stream of events is open, virtual time stands still
             f"http://127.0.0.1:{self._port}/"],
            check=True, capture_output=True, timeout=300,
        )  # fmt: skip
        with Image.open(io.BytesIO(picture.read_bytes())) as image:
            image.convert("RGB").save(self._pictures / name, quality=70, method=6)
        return f"![{title}]({name})\n\n"

    def _neutral(self, text: str) -> str:
        text = text.replace(f"127.0.0.1:{self._port}", "127.0.0.1:8000").replace(f" --port {self._port}", "")
        text = text.replace(str(self._home), "~").replace(str(_ROOT), "darkroom.git")
        text = text.replace(socket.gethostname().split(".")[0], "laptop")
        for pattern, instead in _NEUTRAL:
            text = pattern.sub(instead, text)
        return text


def _read(terminal: int, is_over: Callable[[str], bool], seconds: float) -> str:
    """Everything that is written to a terminal until it is over; raises TimeoutExpired."""
    output, deadline = b"", time.monotonic() + seconds
    while True:
        over = is_over(output.decode(errors="replace"))
        if select.select([terminal], [], [], 0.0 if over else 0.2)[0]:
            try:
                found = os.read(terminal, 65_536)
            except OSError:  # the last process that had it has ended
                found = b""
            output += found
            if found:
                continue
            if not over:
                time.sleep(0.05)
        if over:
            return output.decode(errors="replace")
        if time.monotonic() > deadline:
            raise subprocess.TimeoutExpired("a step of a walk", seconds, output)


def _drain(terminal: int) -> None:
    with suppress(OSError):  # it was closed
        while os.read(terminal, 65_536):
            pass


def _has_ended(process: subprocess.Popen[bytes], output: str) -> bool:
    del output
    return process.poll() is not None


def record(name: str, pages: Path) -> None:
    """Record one walk into a folder of pages."""
    source = (_SOURCES / f"{name}.md").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="walk-") as folder:
        walk = Walk(Path(folder), pages)
        try:
            text = walk.record(source)
        finally:
            walk.close()
    (pages / f"{name}.md").write_text(re.sub(r"\n{3,}", "\n\n", text).rstrip("\n") + "\n", encoding="utf-8")


def main(words: Sequence[str] | None = None) -> None:
    """Record the walks that are named; all without a name."""
    parser = argparse.ArgumentParser(description="Record walks into docs/walks.")
    parser.add_argument("name", nargs="*", help=f"{', '.join(walks())}; all without a name")
    arguments = parser.parse_args(words)
    for name in arguments.name or walks():
        record(name, _ROOT / "docs" / "walks")


def walks() -> list[str]:
    """The names of all walks."""
    return sorted(path.stem for path in _SOURCES.glob("*.md"))


if __name__ == "__main__":
    main()
