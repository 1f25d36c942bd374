"""Reads the user comment in a packet of XMP. Looks for its tags and parses no XML, so that none can be hostile.

Source: XMP part 2, 3.3 (`exif:UserComment`, a text in several languages); part 1, 7.
"""

from __future__ import annotations

import html
from collections.abc import Mapping

#: The name that the text has.
USER_COMMENT = "exif:UserComment"
_OPEN, _CLOSE = f"<{USER_COMMENT}", f"</{USER_COMMENT}>"
_ITEM, _ITEM_CLOSE = "<rdf:li", "</rdf:li>"


def read_texts(packet: str) -> Mapping[str, str]:
    """Return the user comment by its name; nothing where there is none."""
    _, found, rest = packet.partition(_OPEN)
    inner, closed, _ = rest.partition(_CLOSE)
    if not found or not closed:
        return {}
    content = inner.partition(">")[2]
    if _ITEM in content:
        content = content.partition(_ITEM)[2].partition(">")[2].partition(_ITEM_CLOSE)[0]
    text = html.unescape(content).strip()
    return {USER_COMMENT: text} if text else {}
