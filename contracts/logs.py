"""Logs: one line for each event on stderr, JSON for machines or text for people.

Request and job ids are bound once to a thread or task and appear in every line logged there, also by
libraries. Keys and images are cut out of every line, prompts unless the operator wants them. Knows no HTTP.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TextIO

from contracts.log_text import TextLayout
from contracts.settings import LogSettings

#: Attributes of every log record; others were given as `extra`.
_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message", "asctime", "taskName", "for_machines",
}  # fmt: skip
#: Fields that appear only in logs that show prompts.
_PROMPTS = frozenset({"prompt", "prompt_2", "prompt_3", "negative_prompt"})
#: In `extra`: an info line that tells people nothing which another does not; only JSON has it.
FOR_MACHINES = {"for_machines": True}
#: Shorter prompts are not cut: they are parts of ordinary sentences.
_MIN_HIDDEN = 4
#: Loggers of this code: their messages quote a prompt only in an argument that an error or a library gave them.
_OUR_LOGGERS = frozenset({"app", "bench", "cli", "contracts", "dispatcher", "models", "unhandled", "worker"})
#: An argument of our own messages that names something, such as an id, a path or a model.
_NAME = re.compile(r"[\w./:@+-]*")

#: Libraries that write a line for each request (in a download, with the addresses of a content network), or for
#: each stage of a start.
_CHATTY = ("httpx", "httpcore", "uvicorn")

#: What must not be written: a lower-case text that every match contains, the pattern, and its replacement. Most
#: lines contain none of these texts, and looking for one takes a fraction of a search by pattern.
_SECRETS = (
    ("data:", re.compile(r"data:[\w.+/-]*(;[\w=-]+)*;base64,[\w+/=-]*"), "data:[cut]"),
    ("dk_", re.compile(r"\b(dk_[0-9a-f]{12})_[\w-]{20,}"), r"\1_[cut]"),
    ("hf_", re.compile(r"\bhf_\w{20,}"), "hf_[cut]"),
    ("whsec_", re.compile(r"\bwhsec_[\w+/=-]+"), "whsec_[cut]"),
    ("bearer ", re.compile(r"\b(Bearer) [\w.~+/=-]+", re.IGNORECASE), r"\1 [cut]"),
    ("basic ", re.compile(r"\b(Basic) [\w.~+/=-]+", re.IGNORECASE), r"\1 [cut]"),
    ("://", re.compile(r"://[^/\s@'\"]+@"), "://[cut]@"),
    (
        "=",
        re.compile(r"([?&][\w-]*(?:signature|sig|token|credential|key)=)[^&\s'\"]+", re.IGNORECASE),
        r"\1[cut]",
    ),
    ("", re.compile(r"[A-Za-z0-9+/=_-]{256,}"), "[cut]"),  # base64 that came without its data: URL
    ("\\x", re.compile(r"(?:\\x[0-9a-f]{2}[^\\]{0,8}){16,}"), "[cut]"),  # bytes as Python shows them
)
_encode = json.JSONEncoder(ensure_ascii=False, default=lambda value: _plain(value)).encode


@dataclass(frozen=True)
class _Context:
    fields: Mapping[str, str] = field(default_factory=dict)
    hidden: list[re.Pattern[str]] = field(default_factory=list)


_context: ContextVar[_Context] = ContextVar("log_context")


def bind(**fields: str) -> None:
    """Put fields into every line of this task or thread from now on, in place of earlier ones."""
    _context.set(_Context(fields))


@contextmanager
def bound(**fields: str) -> Iterator[None]:
    """Add fields to every line of this task or thread while the block runs."""
    before = _context.get(_Context())
    token = _context.set(_Context({**before.fields, **fields}, [*before.hidden]))
    try:
        yield
    finally:
        _context.reset(token)


def hide(*texts: str | None) -> None:
    """Cut these prompts out of all lines of the bound context, where a library or an error quotes them.

    A client chooses its prompts, so they cut neither the ids of a line nor the words of our own messages.
    """
    context = _context.get(None)
    if context is not None:
        for text in texts:
            if text is not None and len(text) >= _MIN_HIDDEN:
                forms = dict.fromkeys((text, repr(text)[1:-1], json.dumps(text)[1:-1]))
                context.hidden.extend(re.compile(rf"(?<!\w){re.escape(form)}(?!\w)") for form in forms)


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Set up logging for this process: format, level, warnings and unhandled errors."""
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    if is_for_people(settings, stream):
        handler.setFormatter(TextLines(settings.prompts, TextLayout(stream)))
        handler.addFilter(lambda record: record.levelno > logging.INFO or not hasattr(record, "for_machines"))
    else:
        handler.setFormatter(JsonLines(settings.prompts))
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    if settings.level == "info":
        for library in _CHATTY:
            logging.getLogger(library).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    sys.excepthook = _write_unhandled
    threading.excepthook = lambda args: _write_unhandled(args.exc_type, args.exc_value, args.exc_traceback)


def is_for_people(settings: LogSettings, stream: TextIO | None = None) -> bool:
    """Whether the log is text for a person, and not JSON."""
    stream = sys.stderr if stream is None else stream
    return settings.format == "text" or (settings.format == "auto" and stream.isatty())


def adopt(*libraries: str) -> None:
    """Use this format for libraries that have their own log handlers."""
    formatter = logging.getLogger().handlers[0].formatter
    for library in libraries:
        for handler in logging.getLogger(library).handlers:
            handler.setFormatter(formatter)


def _write_unhandled(kind: Any, error: Any, trace: Any) -> None:
    if kind is not None and issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("unhandled").critical("unhandled error: %s", kind, exc_info=(kind, error, trace))


class _Lines(logging.Formatter):
    """Base of both formats: a line's fields, and the removal of secrets."""

    def __init__(self, prompts: bool) -> None:
        super().__init__()
        self._prompts = prompts
        self._left_out = _OWN if prompts else _OWN | _PROMPTS

    def fields_of(self, record: logging.LogRecord) -> dict[str, Any]:
        """The bound fields and those given as `extra`."""
        given = {name: value for name, value in record.__dict__.items() if name not in self._left_out}
        if isinstance(given.get("error"), str):
            given["error"] = _cut(given["error"], self._hidden())
        return {**_context.get(_Context()).fields, **given}

    def message_of(self, record: logging.LogRecord) -> str:
        """The message without hidden prompts; of our own messages only the arguments are searched for them."""
        hidden = self._hidden()
        if not hidden:
            return record.getMessage()
        if record.name.partition(".")[0] not in _OUR_LOGGERS:
            return _cut(record.getMessage(), hidden)
        if not isinstance(record.args, tuple):
            return record.getMessage()
        return str(record.msg) % tuple(_cut_argument(argument, hidden) for argument in record.args)

    def _hidden(self) -> list[re.Pattern[str]]:
        return [] if self._prompts else _context.get(_Context()).hidden

    def clean(self, text: str) -> str:
        """The text without secrets and images."""
        lower = text.lower()
        for needle, pattern, replacement in _SECRETS:
            if needle in lower:
                text = pattern.sub(replacement, text)
        return text

    def traceback_of(self, record: logging.LogRecord) -> str | None:
        """The traceback of a record, if any. Hidden prompts are cut out of what its errors say, not of code."""
        if not record.exc_info or record.exc_info[0] is None:
            return None
        text, hidden = self.formatException(record.exc_info), self._hidden()
        for said in _texts_of(record.exc_info[1]) if hidden else ():
            text = text.replace(said, _cut(said, hidden))
        return text


def _cut(text: str, hidden: list[re.Pattern[str]]) -> str:
    for pattern in hidden:
        text = pattern.sub("[prompt]", text)
    return text


class _Quoted:
    """An argument of a message without prompts, for `%s` and `%r`."""

    def __init__(self, text: str, representation: str) -> None:
        self._text, self._representation = text, representation

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return self._representation


def _cut_argument(argument: object, hidden: list[re.Pattern[str]]) -> object:
    parts = argument if isinstance(argument, list | tuple | set) else [argument]
    if all(isinstance(part, int | float) or (isinstance(part, str) and _NAME.fullmatch(part)) for part in parts):
        return argument
    text, representation = _cut(str(argument), hidden), _cut(repr(argument), hidden)
    return argument if text == str(argument) else _Quoted(text, representation)


def _texts_of(error: BaseException | None) -> Iterator[str]:
    """Yield what an error says, and those that it was raised from or while handling, the longest text first."""
    found: dict[int, BaseException] = {}
    waiting = [error]
    while waiting:
        error = waiting.pop()
        if error is not None and id(error) not in found:
            found[id(error)] = error
            waiting += [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]
    texts = {text for error in found.values() for text in (str(error), *getattr(error, "__notes__", ()))}
    yield from sorted(filter(None, texts), key=len, reverse=True)


class JsonLines(_Lines):
    """JSON format: one object a line with time, level, logger, message, fields and traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as a line, without the newline."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.message_of(record),
            **self.fields_of(record),
        }
        trace = self.traceback_of(record)
        if trace is not None:
            line["traceback"] = trace
        try:
            text = _encode(line)
        except TypeError:  # a mapping with keys that JSON does not have
            return _encode(self._cleaned(line))
        return _encode(self._cleaned(line)) if _may_have_secret(text) else text

    def _cleaned(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.clean(value)
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping):
            return {str(name): self._cleaned(part) for name, part in value.items()}
        if isinstance(value, list | tuple | set):
            return [self._cleaned(part) for part in value]
        return self.clean(str(value))


def _may_have_secret(line: str) -> bool:
    """Whether a line of JSON may contain a secret: most lines do not, and are searched only once."""
    lower = line.lower()
    # JSON writes each of these texts as it is, and so the runs of base64; what is around the texts, it may not.
    return any(needle in lower and (needle or pattern.search(line)) for needle, pattern, _ in _SECRETS)


def _plain(value: object) -> object:
    """What is written of a value that JSON has no form for."""
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, set) else str(value)


class TextLines(_Lines):
    """Text format: a line as `contracts.log_text` lays it out."""

    def __init__(self, prompts: bool, layout: TextLayout) -> None:
        super().__init__(prompts)
        self._layout = layout

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as a line; a traceback follows on lines of its own."""
        is_ours = record.name.partition(".")[0] in _OUR_LOGGERS
        text = self._layout.line(record, self.message_of(record), self.fields_of(record), is_ours)
        trace = self.traceback_of(record)
        return self.clean(text if trace is None else f"{text}\n{trace}")
