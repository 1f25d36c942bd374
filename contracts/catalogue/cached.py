"""Rows whose files came from a hub, found in its cache. Opens no connection, loads nothing."""

from __future__ import annotations

from contracts.catalogue.catalogue import Catalogue, ControlNetSpec, LoraSpec, ModelSpec
from contracts.hub.selection import Select, controlnet_files, lora_file, model_files, one_file
from contracts.hub.snapshot import Snapshot, find_snapshot
from contracts.hub.source import HubSource

AnySpec = ModelSpec | ControlNetSpec | LoraSpec


def select_files(row: AnySpec, source: HubSource, class_name: str | None = None) -> Select:
    """Which files of a repository the row needs.

    Args:
        class_name: of the pipeline or ControlNet that the row's family needs; None: any.
    """
    if isinstance(row, LoraSpec):
        return lora_file(source.file, row.variant)
    if isinstance(row, ControlNetSpec):
        return controlnet_files(class_name, row.variant, source.file)
    return model_files(class_name, row.variant) if source.file is None else one_file(source.file)


def find_cached(catalogue: Catalogue, row: AnySpec) -> Snapshot | None:
    """The row's files in the hub's cache; None where some are missing, or are not on a hub at all.

    Raises:
        CatalogueError: the source is neither on this machine nor on a hub.
    """
    source = catalogue.place(row)
    return find_snapshot(source, select_files(row, source)) if isinstance(source, HubSource) else None
