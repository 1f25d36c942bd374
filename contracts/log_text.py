"""The text format of a log line: what a person at a terminal reads. Knows no logger and hides nothing.

16:02:11  job completed  shapes-sdxl, txt2img, 64×64, 12 steps, 0.9 s  4a4e96e10cf19188ff4c7d75cfdac5cd
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, TextIO

#: Control characters, and what changes the direction of text: a client's path must not rewrite the line.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_DIM, _RED, _YELLOW, _RESET = "\x1b[2m", "\x1b[31m", "\x1b[33m", "\x1b[0m"


class TextLayout:
    """Layout of lines on one stream: on a terminal with the time of day and colors, elsewhere with the date."""

    def __init__(self, stream: TextIO) -> None:
        self._is_terminal = stream.isatty()
        # https://no-color.org
        self._has_colors = (
            self._is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
        )

    def line(self, record: logging.LogRecord, message: str, fields: Mapping[str, Any], is_ours: bool) -> str:
        """Lay out one line, without a traceback.

        Args:
            fields: the record's fields that may be shown.
            is_ours: whether one of this service's own modules logs it, whose name then says little to people.
        """
        time = datetime.fromtimestamp(record.created).astimezone()
        when = f"{time:%H:%M:%S}" if self._is_terminal else f"{time:%Y-%m-%d %H:%M:%S}"
        level = "" if record.levelno == logging.INFO else f"{record.levelname}  "
        where = "" if is_ours and record.levelno != logging.DEBUG else f"{record.name}: "
        text = "  ".join(filter(None, [where + message, ", ".join(_details(fields)), *_ids(record, fields)]))
        level, text = (_CONTROLS.sub(lambda found: repr(found[0])[1:-1], part) for part in (level, text))
        if not self._has_colors:
            return f"{when}  {level}{text}"
        color = _RED if record.levelno >= logging.ERROR else _YELLOW if record.levelno >= logging.WARNING else ""
        return f"{_DIM}{when}{_RESET}  {color}{level}{_RESET if color else ''}{text}"


def _details(fields: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a line's fields say, as a person would."""
    for name in ("model", "task"):
        if fields.get(name):
            yield str(fields[name])
    if fields.get("width") and fields.get("height"):
        yield f"{fields['width']}×{fields['height']}"
    for name, one, several in (("images", "image", "images"), ("steps", "step", "steps")):
        count = fields.get(name)
        if count is not None and (name, count) != ("images", 1):
            yield f"{count} {one if count == 1 else several}"
    if fields.get("code"):
        yield f"{fields['code']}: {fields['error']}" if fields.get("error") else str(fields["code"])
    if fields.get("seconds") is not None:
        yield seconds_for_people(fields["seconds"])
    for name in ("prompt", "prompt_2", "prompt_3", "negative_prompt"):
        if fields.get(name):
            yield f"{name}={fields[name]!r}"


def seconds_for_people(seconds: float) -> str:
    """A time in the unit that a person would use: `12 ms`, `0.9 s`, `3 min 20 s`."""
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def _ids(record: logging.LogRecord, fields: Mapping[str, Any]) -> Iterator[str]:
    """Yield the job that a line is about; else, of a problem, the request that it can be found by."""
    if fields.get("job_id"):
        yield str(fields["job_id"])
    elif fields.get("request_id") and record.levelno > logging.INFO:
        yield f"request {fields['request_id']}"
