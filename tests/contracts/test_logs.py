"""Logs: one line per event, with the ids it belongs to, and without secrets, prompts and image data."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from contracts.logs import FOR_MACHINES, adopt, bind, bound, configure, hide
from contracts.settings import LogSettings

KEY = "dk_0123456789ab_" + "s3cret-" * 6 + "x"
SECRETS = {
    f"Authorization: Bearer {KEY}": KEY[16:],
    f"the key {KEY} is not known": KEY[16:],
    "Basic dXNlcjpzM2NyZXQ=": "dXNlcjpzM2NyZXQ",
    "the hub refuses hf_abcdefghijklmnopqrstuvwxyzABCDEFGH": "ghijklmnop",
    "signed with whsec_c2VjcmV0c2VjcmV0": "c2VjcmV0c2VjcmV0",
    "data:image/png;base64,iVBORw0KGgo=": "iVBORw0KGgo",
    "data:image/png;name=x;base64,iVBORw0KGgo=": "iVBORw0KGgo",
    base64.b64encode(b"an image" * 64).decode(): "YW4gaW1h",
    repr(bytes(range(128, 200))): r"\x90",
    "redis://default:s3cret@redis:6379/0 does not answer": "s3cret",
    "GET https://bucket/x.png?X-Amz-Signature=abcdef&a=1": "abcdef",
    "/v1/jobs/1/images/0?expires=1&sig=abcdef": "abcdef",
}


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """Restore the logging of the test process."""
    root, hooks = logging.getLogger(), (sys.excepthook, warnings.showwarning)
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield
    logging.captureWarnings(False)
    root.handlers, (sys.excepthook, warnings.showwarning) = handlers, hooks
    root.setLevel(level)


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def start(**settings: Any) -> io.StringIO:
    stream = io.StringIO()
    configure(LogSettings(**{"format": "json", **settings}), stream)
    return stream


def test_requests_of_this_process_are_logged_only_on_request() -> None:
    levels = [logging.getLogger("httpx").level, logging.getLogger("httpcore").level]
    try:
        start()
        assert not logging.getLogger("httpx").isEnabledFor(logging.INFO)
        assert logging.getLogger("httpx").isEnabledFor(logging.WARNING)
    finally:
        for name, level in zip(("httpx", "httpcore"), levels, strict=True):
            logging.getLogger(name).setLevel(level)


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_bound_and_extra_fields() -> None:
    stream = start()
    log = logging.getLogger("worker.test")
    with bound(request_id="r"), bound(job_id="j"):
        log.warning("lost %d\nlines", 2, extra={"timings": {"denoise": 0.5}, "model": "m"})
    log.info("afterwards")

    first, second = lines_of(stream)
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "warning",
        "logger": "worker.test",
        "message": "lost 2\nlines",
        "request_id": "r",
        "job_id": "j",
        "timings": {"denoise": 0.5},
        "model": "m",
    }
    assert {"request_id", "job_id"} & second.keys() == set()


def test_values_that_json_has_no_form_for_are_written_all_the_same() -> None:
    stream = start()
    values = {"kinds": {"b"}, "path": Path("x"), "sizes": {(64, 64): 1}, "row": MappingProxyType({"a": 1})}
    for name, value in values.items():
        logging.getLogger("x").info("it happened", extra={name: value})

    written = {name: line[name] for line, name in zip(lines_of(stream), values, strict=True)}
    assert written == {"kinds": ["b"], "path": "x", "sizes": {"(64, 64)": 1}, "row": {"a": 1}}


def test_a_traceback_is_a_field_of_its_line() -> None:
    stream = start()
    try:
        raise KeyError("k") from ValueError("the cause")
    except KeyError:
        logging.getLogger("x").exception("it failed")

    (line,) = lines_of(stream)
    assert line["message"] == "it failed"
    assert "ValueError: the cause" in line["traceback"]
    assert line["traceback"].endswith("KeyError: 'k'")


@pytest.mark.parametrize("format", ["json", "text"])
@pytest.mark.parametrize("text", SECRETS)
def test_no_secret_and_no_image_data_is_logged(format: str, text: str) -> None:
    stream = start(format=format, prompts=True)
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("x").exception(f"before {text} after", extra={"path": text, "more": [{"deep": text}]})
    bind(request_id=text)
    logging.getLogger("x").info("bound")
    bind()

    written = stream.getvalue()
    assert SECRETS[text] not in written
    assert SECRETS[text].replace("\\", "\\\\") not in written
    assert "[cut]" in written


@pytest.mark.parametrize("prompts", [False, True])
def test_prompts_are_logged_only_if_the_settings_say_so(prompts: bool) -> None:
    stream = start(prompts=prompts)
    prompt = 'a "zebra"\nin Ålesund'
    log = logging.getLogger("x")
    with bound(job_id="j"):
        hide(prompt, None, "of")
        log.info("accepted", extra={"prompt": prompt, "negative_prompt": "blurred"})
        log.warning("a library quotes %r, or as JSON %s, or as it is: %s", prompt, json.dumps(prompt), prompt)
        try:
            raise ValueError(prompt)
        except ValueError:
            log.exception("one of many")
    log.info("zebra crossing")

    words = [word in line for line in stream.getvalue().splitlines() for word in ("zebra", "lesund", "blurred")]
    assert words == [prompts, prompts, prompts, *[prompts, prompts, False] * 2, True, False, False]
    assert "one of many" in stream.getvalue()


@pytest.mark.parametrize("format", ["json", "text"])
@pytest.mark.parametrize(
    "prompt",
    ["job", "jobs", "completed", "job completed", "j0b1", "info", "in line", "4a4e-j0b1", "Error"],
)
def test_a_prompt_blanks_neither_ids_nor_our_own_messages(format: str, prompt: str) -> None:
    stream = start(format=format)
    with bound(job_id="4a4e-j0b1-job"):
        hide(prompt)
        logging.getLogger("worker.loop").info("job completed: %s, jobs %s", "4a4e-j0b1", ["4a4e-j0b1"])
        try:
            raise ValueError(f"no such thing as {prompt!r} in line 3")
        except ValueError as error:
            logging.getLogger("app.x").exception("job completed, in line, with %r", error)

    written = stream.getvalue()
    assert "job completed: 4a4e-j0b1, jobs ['4a4e-j0b1']" in written
    assert "job completed, in line, with ValueError(" in written
    assert written.count("4a4e-j0b1-job") == 2
    assert "ValueError: no such thing as " in written
    assert len(prompt) < 4 or "'[prompt]'" in written


def test_a_prompt_is_cut_out_of_errors_that_other_errors_were_raised_from() -> None:
    stream = start()
    with bound(job_id="j"):
        hide("a zebra on a bicycle")
        try:
            try:
                raise ValueError("cannot tokenize: a zebra on a bicycle")
            except ValueError as error:
                error.add_note("said of a zebra on a bicycle")
                raise RuntimeError("encode failed") from error
        except RuntimeError:
            logging.getLogger("worker.x").exception("job %s failed", "j")

    (line,) = lines_of(stream)
    assert "ValueError: cannot tokenize: [prompt]\nsaid of [prompt]\n" in line["traceback"]
    assert "RuntimeError: encode failed" in line["traceback"]


def test_a_terminal_gets_text_and_other_streams_json_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    written = {}
    for format in ("auto", "json", "text"):
        for stream in (Terminal(), io.StringIO()):
            configure(LogSettings(format=format), stream)
            with bound(job_id="j"):
                logging.getLogger("x").info("here", extra={"status": 200})
            written[format, stream.isatty()] = stream.getvalue()

    is_json = {key: text.startswith("{") for key, text in written.items()}
    assert is_json == {
        ("auto", True): False, ("auto", False): True, ("json", True): True,
        ("json", False): True, ("text", True): False, ("text", False): False,
    }  # fmt: skip
    assert re.fullmatch(r"\d\d:\d\d:\d\d  x: here  j\n", written["auto", True])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  x: here  j\n", written["text", False])


def test_a_job_is_one_readable_line_and_what_only_machines_need_is_in_json_alone() -> None:
    job = {"model": "sdxl", "task": "txt2img", "width": 1024, "height": 768, "images": 2, "steps": 30}
    problem = {"code": "out_of_memory", "error": "no plan fits", "seconds": 0.0123}
    written = {}
    for format in ("text", "json"):
        stream = start(format=format)
        with bound(job_id="j", request_id="r"):
            logging.getLogger("worker.x").info("job completed", extra={**job, "seconds": 4.25})
            logging.getLogger("worker.x").warning("job failed", extra=job | problem)
            logging.getLogger("worker.x").info("job started", extra={**job, **FOR_MACHINES})
        with bound(request_id="r"):
            logging.getLogger("app.x").warning("not ready: %s", "redis")
        written[format] = stream.getvalue().splitlines()

    shown = "sdxl, txt2img, 1024×768, 2 images, 30 steps"
    assert [line[21:] for line in written["text"]] == [
        f"job completed  {shown}, 4.2 s  j",
        f"WARNING  job failed  {shown}, out_of_memory: no plan fits, 12 ms  j",
        "WARNING  not ready: redis  request r",
    ]
    assert [json.loads(line)["message"] for line in written["json"]] == [
        "job completed", "job failed", "job started", "not ready: redis",
    ]  # fmt: skip
    assert not any("for_machines" in line for line in written["json"])


def test_colors_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    for variables in ({"TERM": "xterm"}, {"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}):
        monkeypatch.delenv("NO_COLOR", raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        configure(LogSettings(), stream := Terminal())
        logging.getLogger("app").error("no")
        written.append("\x1b[31mERROR" in stream.getvalue())

    assert written == [True, False, False]


def test_the_reason_of_a_failed_job_shows_no_prompt() -> None:
    stream = start()
    with bound(job_id="j"):
        hide("a secret zebra")
        logging.getLogger("worker.x").warning("job failed", extra={"error": "not read: 'a secret zebra'"})

    assert lines_of(stream)[0]["error"] == "not read: '[prompt]'"


def test_a_line_break_in_a_path_starts_no_new_line() -> None:
    stream = start(format="text")
    logging.getLogger("x").info("GET %s", "/a\n2026-01-01 00:00:00 INFO x: forged\x1b[2J")

    assert len(stream.getvalue().splitlines()) == 1
    assert r"/a\n2026" in stream.getvalue()


def test_lower_levels_are_not_logged() -> None:
    stream = start(level="warning")
    logging.getLogger("x").info("too little")
    logging.getLogger("x").warning("enough")

    assert [line["message"] for line in lines_of(stream)] == ["enough"]


def test_libraries_with_their_own_handlers_log_in_the_same_format() -> None:
    start()
    own, library = io.StringIO(), logging.getLogger("a.library")
    library.propagate = False
    library.addHandler(logging.StreamHandler(own))
    adopt("a.library")
    library.warning("it says")

    assert lines_of(own)[0]["message"] == "it says"


def test_warnings_and_uncaught_exceptions_are_logged() -> None:
    program = (
        "import threading, warnings\n"
        "from contracts.logs import configure\n"
        "from contracts.settings import LogSettings\n"
        "configure(LogSettings())\n"
        "warnings.warn('an old name', FutureWarning)\n"
        "def fail():\n"
        "    raise ValueError('in a thread')\n"
        "thread = threading.Thread(target=fail)\n"
        "thread.start()\n"
        "thread.join()\n"
        "raise RuntimeError('at the end')\n"
    )
    environment = {**os.environ, "DARKROOM_LOG_FORMAT": "json"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 1
    warning, thread, end = map(json.loads, done.stderr.splitlines())
    assert "an old name" in warning["message"]
    assert "ValueError: in a thread" in thread["traceback"]
    assert "RuntimeError: at the end" in end["traceback"]
