"""The text of a safetensors header, read member by member up to the first one that the format does not allow.

A header comes from clients. A JSON parser would build all of it before anything is checked: numbers of any
length, lists in lists. Here each tensor's entry is a short piece of the text, and names and counts are bounded, so
the time is linear in the text and errors name the tensor. Knows nothing of files and offsets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from contracts.errors import DarkroomError
from contracts.weights.formats.json_text import unique_members

#: Maximum number of tensors in one file. Checkpoints of image models have a few thousand.
_MAX_TENSORS = 16_384
#: Maximum number of entries in `__metadata__`; trainers write about a hundred, torchao one for each tensor.
_MAX_METADATA = _MAX_TENSORS
#: Maximum number of characters in a name; the names of real tensors have less than 200.
_MAX_NAME = 512
_METADATA = "__metadata__"
_SPACE = re.compile(r"[ \t\n\r]*")
#: The entry of one tensor. Eight sides and two offsets of the largest size take less than 300 characters.
_ENTRY = re.compile(r"\{[^{}]{0,1000}\}")


class UnreadableWeights(DarkroomError):
    """A file of weights that cannot be used; the message continues a sentence that names the file."""


class NotSafetensors(UnreadableWeights):
    """A file that is not a complete safetensors file."""


def read_text(raw: bytes) -> tuple[dict[str, dict[str, object]], dict[str, str]]:
    """Read a header.

    Returns:
        The JSON object of each tensor, unchecked, by the tensor's name; and the file's metadata.

    Raises:
        NotSafetensors: it is not UTF-8, breaks the grammar, repeats a name, or exceeds a limit.
    """
    try:
        cursor = _Cursor(raw.decode())
    except UnicodeDecodeError:
        raise NotSafetensors("is not a safetensors file: its header is not UTF-8") from None
    entries: dict[str, dict[str, object]] = {}
    metadata: dict[str, str] = {}
    for name in cursor.names("tensors", _MAX_TENSORS):
        if name == _METADATA:
            metadata = {key: cursor.string() for key in cursor.names("entries of metadata", _MAX_METADATA)}
        else:
            entries[name] = cursor.entry(name)
    cursor.expect_end()
    return entries, metadata


class _Cursor:
    """A position in the text, moved on by what is read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._decoder = json.JSONDecoder(object_pairs_hook=unique_members)

    def names(self, content: str, limit: int) -> Iterator[str]:
        """Yield each name of the object that begins here; the caller reads its value before the next one."""
        self._expect("{")
        seen: set[str] = set()
        if self._skip("}"):
            return
        while True:
            name = self.string()
            if not name.isprintable() or not 0 < len(name) <= _MAX_NAME:
                raise NotSafetensors(
                    f"has a name that is empty, not printable or longer than {_MAX_NAME} characters"
                )
            if name in seen:
                raise NotSafetensors(f"is damaged: its header has {name[:80]!r} twice")
            if len(seen) == limit:
                raise NotSafetensors(f"has more than {limit} {content} in its header")
            seen.add(name)
            self._expect(":")
            yield name
            if self._skip("}"):
                return
            self._expect(",")

    def string(self) -> str:
        """Read a string."""
        if not self._is_at('"'):
            raise self._malformed()
        try:
            value, self._position = self._decoder.raw_decode(self._text, self._position)
            value.encode()  # fails for half of a surrogate pair, which JSON can escape
        except ValueError:
            raise self._malformed() from None
        return str(value)

    def entry(self, name: str) -> dict[str, object]:
        """Read the JSON object of a tensor."""
        self._skip_space()
        match = _ENTRY.match(self._text, self._position)
        if match is None:
            raise NotSafetensors(f"is damaged: the entry of {name[:80]} is not an object, or too long")
        try:
            value: dict[str, object] = self._decoder.decode(match[0])
        except (ValueError, RecursionError):
            raise NotSafetensors(f"is damaged: the entry of {name[:80]} is not valid JSON") from None
        self._position = match.end()
        return value

    def expect_end(self) -> None:
        """Writers fill a header up with spaces."""
        self._skip_space()
        if self._position != len(self._text):
            raise self._malformed()

    def _expect(self, character: str) -> None:
        if not self._skip(character):
            raise self._malformed()

    def _skip(self, character: str) -> bool:
        found = self._is_at(character)
        self._position += found
        return found

    def _is_at(self, character: str) -> bool:
        self._skip_space()
        return self._text.startswith(character, self._position)

    def _skip_space(self) -> None:
        match = _SPACE.match(self._text, self._position)
        self._position = match.end() if match else self._position

    def _malformed(self) -> NotSafetensors:
        return NotSafetensors(f"is not a safetensors file: its header is malformed at character {self._position}")
