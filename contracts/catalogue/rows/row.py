"""What rows of all kinds have: an id, a family, and where their weights come from.

Checks that the fields about the weights agree. Opens no file and no connection.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import Annotated, Self
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, model_validator

from contracts.catalogue.families import FAMILIES, Family
from contracts.hub.source import HubSource, parse_source

#: Weight variants are part of file names: `diffusion_pytorch_model.fp16.safetensors`.
Variant = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")]
#: Ids are part of Redis keys and URLs, so their characters are restricted.
Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
#: A name that a model has elsewhere, as on OpenAI, Replicate or the Hugging Face hub.
Alias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?$")]
#: A branch, a tag or a commit. https://git-scm.com/docs/git-check-ref-format
Revision = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*$", max_length=200)
]
#: A path inside a repository or folder.
WeightFile = Annotated[
    str, Field(pattern=r"^[^/\\\x00.][^/\\\x00]*(/[^/\\\x00.][^/\\\x00]*)*\.safetensors$", max_length=500)
]

SOURCE_FORMS = (
    "a path, org/name, org/name/FILE.safetensors, or an address of the hub such as "
    "https://huggingface.co/org/name/blob/REVISION/FILE.safetensors"
)


class SourceRow(BaseModel):
    """Fields that rows of all kinds have.

    Attributes:
        id: the name that requests use; lower-case letters, digits, `.`, `_` and `-`, at most 64.
        source: a path, or a repository, or a file of one, on a hub.
        revision: branch, tag or commit of a source on a hub; default: what `main` is when it is first asked for.
        title: a name for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Id
    source: str
    revision: Revision | None = None
    title: str = ""

    @property
    def hub_source(self) -> HubSource | None:
        """What its source names on a hub, even where a path of that name exists; None: it can only be a path."""
        source = parse_source(self.source)
        return None if source is None else replace(source, revision=self.revision or source.revision)

    def pinned(self, commit: str) -> Self:
        """Return the row with this commit for its revision."""
        return self.model_copy(update={"revision": commit})

    @model_validator(mode="after")
    def _source_and_fields_agree(self) -> Self:
        source = parse_source(self.source)
        if source is None and "://" in self.source:
            raise ValueError(f"source must be {SOURCE_FORMS}, got {self.source!r}")
        if self.revision is None:
            return self
        if source is None:
            raise ValueError(f"revision is for a source on a hub (org/name), and {self.source!r} is a path")
        if source.revision not in (None, self.revision):
            raise ValueError(
                f"revision is {self.revision!r}, and the source names {source.revision!r}: remove one"
            )
        return self


class Row(SourceRow):
    """A row of weights that are of a family.

    Attributes:
        family: the architecture that the weights are of.
    """

    family: str

    @property
    def family_spec(self) -> Family:
        """The family's row."""
        return FAMILIES[self.family]

    @property
    def checkpoint_family(self) -> Family:
        """The row of what its files are."""
        return self.family_spec

    @model_validator(mode="after")
    def _family_is_known(self) -> Self:
        if self.family not in FAMILIES:
            near = difflib.get_close_matches(self.family, FAMILIES, 1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"unknown family {self.family!r}; known: {', '.join(FAMILIES)}{meant}")
        return self


class WeightRow(Row):
    """A row of which one file of weights is used.

    Attributes:
        variant: weight variant in a folder or repository, for example `fp16`.
        file: path of the weights in a folder or repository that holds several.
    """

    variant: Variant | None = None
    file: WeightFile | None = None

    @property
    def hub_source(self) -> HubSource | None:
        """What its source names on a hub, with `file`; None: it can only be a path."""
        source = super().hub_source
        return None if source is None else replace(source, file=self.file or source.file)

    @model_validator(mode="after")
    def _names_one_file(self) -> Self:
        source = parse_source(self.source)
        if self.file is None:
            return self
        if self.variant is not None:
            raise ValueError("file and variant both choose the weights: remove one")
        is_file = self.source.endswith(".safetensors") if source is None else source.file not in (None, self.file)
        if is_file:
            raise ValueError(f"file is {self.file!r}, and the source is a file already: remove one")
        return self


def address_of(source: HubSource) -> str:
    """Return the address of a repository, or of a file of it, at its revision, which `parse_source` reads."""
    page = f"https://huggingface.co/{source.repository}"
    revision = quote(source.revision or "main", safe="")
    return f"{page}/tree/{revision}" if source.file is None else f"{page}/blob/{revision}/{quote(source.file)}"
