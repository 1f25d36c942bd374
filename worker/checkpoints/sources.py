"""Where a row's weights are on this machine, and how they get there from a hub.

`find_*` open no connection: only they are for the thread that generates. `fetch_*` do, where files are missing or
unverified, and are for the thread that prepares. Loads nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from contracts.catalogue.cached import AnySpec, file_beside, find_file_beside, optional_t5, select_files
from contracts.catalogue.catalogue import Catalogue, ControlNetSpec, LoraSpec, NetworkSpec, VaeSpec
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.hub.folders import folder_files
from contracts.hub.repository_files import RepositoryFiles, weights_below
from contracts.hub.selection import Select, descriptions, model_files
from contracts.hub.snapshot import Snapshot, fetch, find_snapshot
from contracts.hub.source import CHECKPOINT_SUFFIXES, HubSource
from contracts.jobs.failures import FailureCode, JobFailed
from worker.checkpoints.one_file.single_file import SingleFile
from worker.families import DiffusersFamily, get_family

OnProgress = Callable[[int, int], None]
IsWanted = Callable[[], bool]


def _ignore(done: int, total: int) -> None:
    pass


def _always() -> bool:
    return True


def find_model(
    catalogue: Catalogue, spec: ModelSpec, family: DiffusersFamily, *, without_t5: bool = False
) -> Path | None:
    """The checkpoint's folder or file; None where it, or what its file lacks, must be fetched first.

    Args:
        without_t5: the weights of a T5 that the family works without are never loaded, so they may be missing.
    """
    if _find_beside(catalogue, _files_beside(spec, without_t5=without_t5)) is None:
        return None
    place = catalogue.place(spec)
    path = place if isinstance(place, Path) else _find(place, _select(place, spec, without_t5))
    if path is None or path.is_dir() or path.suffix not in CHECKPOINT_SUFFIXES:
        return path
    return None if find_config(catalogue, spec, family, path, without_t5=without_t5) is None else path


def fetch_model(
    catalogue: Catalogue,
    spec: ModelSpec,
    family: DiffusersFamily,
    *,
    on_progress: OnProgress = _ignore,
    is_wanted: IsWanted = _always,
    without_t5: bool = False,
) -> Path:
    """The same, with all that it needs fetched and verified.

    Raises:
        HubUnavailable, HubRefused, Cancelled: as `contracts.hub.snapshot.fetch`.
        CatalogueError: the source is neither a repository nor a path on this machine.
    """
    place = catalogue.place(spec)
    config = None if spec.config is None else catalogue.locate(spec.config)
    if isinstance(config, HubSource) and (isinstance(place, Path) or place.file is not None):
        # Small; a configuration of the wrong class is found before the weights are fetched.
        fetch(config, descriptions(family.checkpoint_class), is_wanted=is_wanted)
    if isinstance(place, HubSource):
        select = _select(place, spec, without_t5)
        place = _path(fetch(place, select, on_progress=on_progress, is_wanted=is_wanted))
    if place.is_file() and place.suffix in CHECKPOINT_SUFFIXES:
        file = SingleFile(place)
        config = config or file.usual_repository()
        if isinstance(config, HubSource):
            select = _config_select(file, spec, family, without_t5)
            found = find_snapshot(config, select)
            # Where no commit is agreed on, what is in the cache will do.
            revision = None if found is None else found.commit
            fetch(config, select, revision=revision, on_progress=on_progress, is_wanted=is_wanted)
    for source in _files_beside(spec, without_t5=without_t5).values():
        beside = catalogue.locate(source)
        if isinstance(beside, HubSource):
            fetch(beside, file_beside(beside), on_progress=on_progress, is_wanted=is_wanted)
    return place


def find_text_encoders(
    catalogue: Catalogue, spec: ModelSpec, *, without_t5: bool = False
) -> dict[str, Path] | None:
    """Component -> file, of the row's `text_encoders`; None where one must be fetched first.

    Args:
        without_t5: without a T5 that the family works without.
    """
    wanted = _files_beside(spec, without_t5=without_t5)
    return _find_beside(catalogue, {name: source for name, source in wanted.items() if name in spec.text_encoders})


def find_control_lora(catalogue: Catalogue, spec: ModelSpec) -> Path | None:
    """The file of the row's `control_lora`; None where it has none.

    Raises:
        CatalogueError: it must be fetched first.
    """
    if spec.control_lora is None:
        return None
    file = find_file_beside(catalogue, spec.control_lora.source)
    if file is None:
        raise CatalogueError("the file of its control_lora is not on this machine")
    return file


def _find_beside(catalogue: Catalogue, sources: Mapping[str, str]) -> dict[str, Path] | None:
    found = {}
    for name, source in sources.items():
        path = find_file_beside(catalogue, source)
        if path is None:
            return None
        found[name] = path
    return found


def _files_beside(spec: ModelSpec, *, without_t5: bool) -> dict[str, str]:
    left_out = optional_t5(spec.family_spec) if without_t5 else ()
    return {name: source for name, source in spec.files_beside.items() if name not in left_out}


def find_config(
    catalogue: Catalogue, spec: ModelSpec, family: DiffusersFamily, path: Path, *, without_t5: bool = True
) -> Path | None:
    """The folder with the configurations and encoders that a single file lacks; None where it is not here.

    Args:
        without_t5: it may lack the weights of a T5 that the family works without.
    """
    file = SingleFile(path)
    place = file.usual_repository() if spec.config is None else catalogue.locate(spec.config)
    if isinstance(place, Path):
        return place
    found = find_snapshot(place, _config_select(file, spec, family, without_t5))
    return None if found is None else found.folder


def weights_beside(catalogue: Catalogue, spec: ModelSpec, family: DiffusersFamily, path: Path) -> list[Path]:
    """The row's files beside its checkpoint, and the weights that a single file lacks and `config` has."""
    wanted = (_files_beside(spec, without_t5=without_t5) for without_t5 in (False, True))
    beside = next(filter(None, (_find_beside(catalogue, files) for files in wanted)), {})
    if path.is_dir() or spec.config is None:
        return list(beside.values())
    file, folder = SingleFile(path), find_config(catalogue, spec, family, path)
    if folder is None:
        return list(beside.values())
    names = folder_files(RepositoryFiles.in_folder(folder), None if file.has_encoders else spec.variant)
    parts = {name: name.partition("/")[0] for name in sorted(names) if name.endswith(".safetensors")}
    lacking = [folder / name for name, part in parts.items() if not file.holds(part, family)]
    return [*(one for one in lacking if one.parent.name not in beside), *beside.values()]


def find_component(catalogue: Catalogue, spec: ControlNetSpec | VaeSpec) -> Path | None:
    """The folder of a ControlNet or VAE; its weights, or their index, where the row chooses them."""
    place = catalogue.place(spec)
    if isinstance(place, Path):
        return _chosen_in(place, spec)
    found = find_snapshot(place, _select(place, spec))
    return None if found is None else _component_path(found, place, spec)


def fetch_component(
    catalogue: Catalogue,
    spec: ControlNetSpec | VaeSpec,
    *,
    on_progress: OnProgress = _ignore,
    is_wanted: IsWanted = _always,
) -> Path:
    """The same, fetched and verified. Raises as `fetch_model`."""
    place = catalogue.place(spec)
    if isinstance(place, Path):
        return _chosen_in(place, spec)
    snapshot = fetch(place, _select(place, spec), on_progress=on_progress, is_wanted=is_wanted)
    return _component_path(snapshot, place, spec)


def find_lora(catalogue: Catalogue, spec: LoraSpec) -> Path | None:
    """The adapter's file.

    Raises:
        JobFailed: a folder on this machine does not hold exactly one `.safetensors` file.
    """
    place = catalogue.place(spec)
    if isinstance(place, Path):
        return _lora_in(place, spec)
    return _find(place, _select(place, spec))


def fetch_lora(
    catalogue: Catalogue, spec: LoraSpec, *, on_progress: OnProgress = _ignore, is_wanted: IsWanted = _always
) -> Path:
    """The same, fetched and verified. Raises as `fetch_model`, and as `find_lora`."""
    place = catalogue.place(spec)
    if isinstance(place, Path):
        return _lora_in(place, spec)
    return _path(fetch(place, _select(place, spec), on_progress=on_progress, is_wanted=is_wanted))


def find_network(catalogue: Catalogue, spec: NetworkSpec) -> Path | None:
    """The file of a network that runs by itself; None where it must be fetched. Raises CatalogueError."""
    place = catalogue.place(spec)
    return place if isinstance(place, Path) else _find(place, _select(place, spec))


def fetch_network(
    catalogue: Catalogue, spec: NetworkSpec, *, on_progress: OnProgress = _ignore, is_wanted: IsWanted = _always
) -> Path:
    """The same, fetched and verified. Raises as `fetch_model`."""
    place = catalogue.place(spec)
    if isinstance(place, Path):
        return place
    return _path(fetch(place, _select(place, spec), on_progress=on_progress, is_wanted=is_wanted))


def _find(place: HubSource, select: Select) -> Path | None:
    found = find_snapshot(place, select)
    return None if found is None else _path(found)


def _path(snapshot: Snapshot) -> Path:
    """What is loaded of it: its one file, or its folder."""
    return snapshot.paths[0] if len(snapshot.files) == 1 else snapshot.folder


def class_needed(row: AnySpec) -> str | None:
    """The class that a repository must be of for this row; None for those that name none, or one of several."""
    if isinstance(row, LoraSpec | VaeSpec | NetworkSpec):
        return None
    return (
        row.class_name
        if isinstance(row, ControlNetSpec)
        else get_family(row.checkpoint_family.id).checkpoint_class
    )


def _select(place: HubSource, row: AnySpec, without_t5: bool = False) -> Select:
    return select_files(row, place, class_needed(row), without_t5=without_t5)


def _config_select(file: SingleFile, spec: ModelSpec, family: DiffusersFamily, without_t5: bool) -> Select:
    """What a single file lacks: descriptions always, and with a `config` the encoders that it does not hold."""
    pipeline = family.checkpoint_class
    if spec.config is None:
        return descriptions(pipeline)
    left_out = optional_t5(spec.family_spec) if without_t5 else ()
    if not file.has_encoders:
        without = (family.denoiser, *["vae"] * file.has_vae, *spec.text_encoders, *left_out)
        return model_files(pipeline, spec.variant, without=without)
    parts = [part for part in ("vae", family.t5) if part and part not in (*spec.text_encoders, *left_out)]
    return descriptions(pipeline, [part for part in parts if not file.holds(part, family)])


def _component_path(snapshot: Snapshot, place: HubSource, spec: ControlNetSpec | VaeSpec) -> Path:
    if len(snapshot.files) == 1:
        return snapshot.paths[0]  # a file alone
    chosen = snapshot.paths[1]  # after config.json: the weights, or the index of their shards
    return snapshot.folder if spec.variant is None and place.file is None else chosen


def _chosen_in(path: Path, spec: ControlNetSpec | VaeSpec) -> Path:
    """The same of one in a folder on this machine."""
    if path.is_file():
        return path
    if spec.file is not None:
        return path / spec.file
    return path if spec.variant is None else path / folder_files(RepositoryFiles.in_folder(path), spec.variant)[1]


def _lora_in(path: Path, spec: LoraSpec) -> Path:
    files = weights_below(path)
    if spec.variant is not None and path.is_dir():
        files = [file for file in files if f".{spec.variant}." in file.name]
    if len(files) != 1 or files[0].suffix != ".safetensors":
        message = f"LoRA {spec.id}: {spec.source} must be one .safetensors file"
        raise JobFailed(FailureCode.LORA_INCOMPATIBLE, message)
    return files[0]
