"""Rows whose files came from a hub, found in its cache. Opens no connection, loads nothing."""

from __future__ import annotations

from pathlib import Path

from contracts.catalogue.catalogue import (
    AnySpec,
    Catalogue,
    ControlNetSpec,
    LoraSpec,
    NetworkSpec,
    PreprocessorSpec,
    VaeSpec,
)
from contracts.catalogue.families import Family
from contracts.catalogue.rows.models import ModelSpec
from contracts.hub.selection import (
    Select,
    controlnet_files,
    lora_file,
    model_files,
    one_file,
    transformers_files,
)
from contracts.hub.snapshot import Snapshot, find_snapshot
from contracts.hub.source import CHECKPOINT_SUFFIXES, HubSource

__all__ = ["AnySpec", "file_beside", "find_cached", "find_file_beside", "optional_t5", "select_files"]


def select_files(
    row: AnySpec, source: HubSource, class_name: str | None = None, *, without_t5: bool = False
) -> Select:
    """Which files of a repository the row needs.

    Args:
        class_name: of the pipeline or ControlNet that the row's family needs; None: any.
        without_t5: leave out the weights of a T5 that the model's family works without.
    """
    if isinstance(row, LoraSpec):
        return lora_file(source.file, row.variant)
    if isinstance(row, ControlNetSpec):
        return controlnet_files(class_name, row.variant, source.file)
    if isinstance(row, VaeSpec):
        return controlnet_files(None, row.variant, source.file)
    if isinstance(row, PreprocessorSpec):
        return transformers_files()
    if isinstance(row, NetworkSpec):
        return lora_file(source.file, None)
    if source.file is not None:
        return one_file(source.file, CHECKPOINT_SUFFIXES)
    left_out = optional_t5(row.family_spec) if without_t5 else ()
    without = (*row.text_encoders, *left_out, *row.family_spec.unused)
    return model_files(class_name, row.variant, without=without)


def file_beside(source: HubSource) -> Select:
    """Select a file that a model's row names on a hub beside its checkpoint (`ModelSpec.files_beside`)."""
    return one_file(source.file or "")


def find_file_beside(catalogue: Catalogue, source: str) -> Path | None:
    """A file that a model's row names beside its checkpoint, here or in the hub's cache; None: it must be fetched.

    Raises:
        CatalogueError: the source is neither here nor on a hub.
    """
    place = catalogue.locate(source)
    if isinstance(place, Path):
        return place
    found = find_snapshot(place, file_beside(place))
    return None if found is None else found.paths[0]


def optional_t5(family: Family) -> tuple[str, ...]:
    """The T5 that a family works without; empty where it has none, or needs it."""
    if not family.t5_optional:
        return ()
    return tuple(encoder.name for encoder in family.text_encoders if encoder.kind == "t5")


def find_cached(catalogue: Catalogue, row: AnySpec) -> Snapshot | None:
    """The row's files in the hub's cache; None where some are missing, or are not on a hub at all.

    A T5 that the family works without may be missing: a worker that never loads it does not fetch it.

    Raises:
        CatalogueError: the source is neither on this machine nor on a hub.
    """
    source = catalogue.place(row)
    if not isinstance(source, HubSource):
        return None
    found = find_snapshot(source, select_files(row, source))
    if found is None and isinstance(row, ModelSpec) and optional_t5(row.family_spec):
        return find_snapshot(source, select_files(row, source, without_t5=True))
    return found
