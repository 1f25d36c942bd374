"""The text of the built-in catalogue, for catalogues of tests that have its rows and others."""

from __future__ import annotations

from contracts.settings import BUILT_IN_CATALOGUE

#: Keys of rows that name a file or folder beside the catalogue.
_PLACES = ("source", "image_encoder")


def built_in_rows() -> str:
    """The rows, whose files are found from any folder."""
    text = BUILT_IN_CATALOGUE.read_text(encoding="utf-8")
    for key in _PLACES:
        text = text.replace(f'\n{key} = "', f'\n{key} = "{BUILT_IN_CATALOGUE.parent}/')
    return text
