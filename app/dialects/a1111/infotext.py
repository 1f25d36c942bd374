"""Reads the text of parameters that the web UI, and workers here, write into images. Knows no files.

Source: `parse_generation_parameters` in `modules/infotext_utils.py` of
https://github.com/AUTOMATIC1111/stable-diffusion-webui.
"""

from __future__ import annotations

import json
import re
from typing import Any

#: Longest text that is read. The web UI writes a few KiB; workers here up to twice what prompts may have.
MAX_TEXT = 256 * 1024
_NEGATIVE = re.compile(r"^[ \t]*Negative prompt:", re.MULTILINE)
_PAIR = re.compile(r'(\w[\w \-/]{1,60}):[ \t]{0,8}("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
#: The last line of a text has parameters if there are this many.
_MIN_PAIRS = 3
_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})", re.ASCII)


def read_infotext(text: str) -> dict[str, Any]:
    """Return the fields of a text under the web UI's names, `Prompt` among them; all values are strings."""
    *lines, last = text.strip()[:MAX_TEXT].split("\n")
    pairs = _PAIR.findall(last)
    if len(pairs) < _MIN_PAIRS:
        lines, pairs = [*lines, last], []
    positive, *rest = _NEGATIVE.split("\n".join(lines), maxsplit=1)
    negative = "".join(rest)
    found: dict[str, Any] = {"Prompt": positive.strip(), "Negative prompt": negative.strip()}
    for name, value in pairs:
        size = _SIZE.fullmatch(value)
        if size is not None:
            found |= {f"{name}-1": size[1], f"{name}-2": size[2]}
        else:
            found[name] = _unquoted(value)
    return found


def has_negative_prompt(text: str) -> bool:
    """Whether a text has a negative prompt, which may be empty; without one it is up to the model."""
    return _NEGATIVE.search(text[:MAX_TEXT]) is not None


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value.strip()
    try:
        return str(json.loads(value))
    except ValueError:
        return value
