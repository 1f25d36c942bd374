"""Text encoders in files of their own, as ComfyUI has them: what each is, and whether a model can use it.

Reads headers and configurations; loads nothing. Files that are not on this machine are passed over: the worker
that fetches them says what is wrong with one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.weights.configs import read_config
from contracts.weights.counts.parameter_counts import ParameterCount, count_tensors
from contracts.weights.formats.header_text import NotSafetensors
from contracts.weights.formats.safetensors import Tensor, read_header

#: What ComfyUI may have before each name, in files that it saved.
_PREFIX = re.compile(r"^(text_encoders\.)?(clip_l|clip_g|t5xxl)\.transformer\.")
#: Token table of a CLIP: in every release, and as transformers saves one without a projection.
_CLIP_TABLES = ("text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight")
_T5_TABLES = ("shared.weight", "encoder.embed_tokens.weight")
_LAYER = re.compile(r"^(?:(?:text_model\.)?encoder\.layers|encoder\.block)\.(\d+)\.")
#: What no layer takes: what is computed anyway, and a tokenizer.
_HARMLESS = re.compile(r"(^|\.)(position_ids|logit_scale|spiece_model)$")


@dataclass(frozen=True)
class TextEncoderFacts:
    """Facts about a text encoder: its kind and sizes.

    Attributes:
        kind: `CLIP text model` or `T5`.
        width: of the vector of a token.
    """

    kind: str
    width: int
    layers: int

    def __str__(self) -> str:
        """For people."""
        return f"a {self.kind} of width {self.width} with {self.layers} layers"


def own_names(names: Iterable[str]) -> dict[str, str]:
    """Return each tensor's name in its file -> its name in a text encoder; without those that no layer needs.

    Raises:
        CatalogueError: two have one name there.
    """
    by_own: dict[str, str] = {}
    for name in names:
        own = _PREFIX.sub("", name)
        if own in by_own:
            raise CatalogueError(f"the file has two tensors for {own[:120]}")
        if not _HARMLESS.search(own):
            by_own[own] = name
    return {name: own for own, name in by_own.items()}


def read_text_encoder(file: Path) -> TextEncoderFacts:
    """Return what the file holds, by its header.

    Raises:
        CatalogueError: it cannot be read, or holds no text encoder alone.
    """
    tensors = _read(file)
    tables = [name for name in (*_CLIP_TABLES, *_T5_TABLES) if name in tensors]
    shape = tensors[tables[0]].shape if tables else ()
    if len(shape) != 2:
        raise CatalogueError(
            f"{file.name} is not the file of a text encoder alone: it has neither {_CLIP_TABLES[0]} nor "
            f"{_T5_TABLES[0]}"
        )
    numbers = {int(found[1]) for found in map(_LAYER.match, tensors) if found is not None}
    kind = "CLIP text model" if tables[0] in _CLIP_TABLES else "T5"
    return TextEncoderFacts(kind, shape[1], len(numbers))


def described(config: Mapping[str, Any]) -> TextEncoderFacts | None:
    """Return what the text encoder of this configuration is; None for one of another kind."""
    if config.get("model_type") == "clip_text_model":
        return TextEncoderFacts(
            "CLIP text model", config.get("hidden_size", 512), config.get("num_hidden_layers", 12)
        )
    if config.get("model_type") in ("t5", "mt5"):
        return TextEncoderFacts("T5", config.get("d_model", 512), config.get("num_layers", 6))
    return None


def check_text_encoder(name: str, file: Path, config: Mapping[str, Any]) -> None:
    """Refuse a file that is not the text encoder of this name and configuration; raises CatalogueError."""
    found, needed = read_text_encoder(file), described(config)
    if needed is None:
        kind = str(config.get("model_type"))[:40]
        raise CatalogueError(
            f"text_encoders: {name} is a {kind} here, and only CLIP text models and T5 can be replaced"
        )
    if found != needed:
        raise CatalogueError(f"text_encoders: {name}: {file.name} is {found}, and the model needs {needed}")


def check_row_text_encoders(catalogue: Catalogue, row: ModelSpec) -> None:
    """Check those of a model's row that are on this machine; raises CatalogueError."""
    folder = _configurations(catalogue, row)
    for name, file in files_here(catalogue, row):
        config = {} if folder is None else read_config(folder / name)
        if config:
            check_text_encoder(name, file, config)
        else:
            read_text_encoder(file)


def files_here(catalogue: Catalogue, row: ModelSpec) -> Iterator[tuple[str, Path]]:
    """Yield the text encoders of a model's row whose files are on this machine, not in a hub's cache.

    Raises:
        CatalogueError: a source is neither a file here nor one on a hub.
    """
    for name, source in row.text_encoders.items():
        place = catalogue.locate(source)
        if not isinstance(place, Path):
            continue
        if not place.is_file():
            raise CatalogueError(f"text_encoders: {name}: {source} is not a file")
        yield name, place


def count_text_encoder(file: Path) -> ParameterCount:
    """Count what is loaded of a text encoder's file; raises CatalogueError."""
    tensors = _read(file)
    twice = _T5_TABLES[1] if _T5_TABLES[0] in tensors else None
    return count_tensors((name, tensor) for name, tensor in tensors.items() if name != twice)


def _read(file: Path) -> Mapping[str, Tensor]:
    try:
        stored = read_header(file).tensors
    except NotSafetensors as error:
        raise CatalogueError(f"{file.name} {error}") from None
    except OSError as error:
        raise CatalogueError(f"{file}: {error.strerror}") from None
    return {own: stored[name] for name, own in own_names(stored).items()}


def _configurations(catalogue: Catalogue, row: ModelSpec) -> Path | None:
    place = catalogue.place(row)
    if isinstance(place, Path) and place.is_file() and row.config is not None:
        place = catalogue.locate(row.config)
    return place if isinstance(place, Path) and place.is_dir() else None
