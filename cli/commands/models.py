"""`darkroom models`: what a service offers, and rows of the catalogue file, which it takes over while it runs."""

from __future__ import annotations

import argparse
import sys
import tomllib
from functools import partial
from pathlib import Path

from pydantic import ValidationError
from tqdm import tqdm

from cli.catalogue.catalogue_file import TABLES, add_row, find_row, remove_row
from cli.catalogue.rehearsal import rehearse
from cli.client import Client, Json
from cli.listing import table
from cli.options.service import add_service_arguments
from contracts.catalogue.cached import AnySpec, file_beside, select_files
from contracts.catalogue.catalogue import Catalogue, ControlNetSpec, LoraSpec, NetworkSpec
from contracts.catalogue.families import FAMILIES
from contracts.catalogue.reader import read_catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError, DarkroomError
from contracts.hub import snapshot
from contracts.hub.access import check_access
from contracts.hub.errors import HubUnavailable
from contracts.hub.selection import Select, descriptions
from contracts.hub.source import HubSource
from contracts.settings import BUILT_IN_CATALOGUE, SharedSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands; without one, models are listed."""
    add_service_arguments(parser)
    parser.set_defaults(run=_list)
    actions = parser.add_subparsers(metavar="ACTION")
    listing = actions.add_parser("list", help="list the service's models")
    add_service_arguments(listing)
    listing.set_defaults(run=_list)
    add = actions.add_parser("add", help="add a row to the catalogue file; a running service takes it over")
    add.add_argument("id", help="its name in requests")
    add.add_argument("--family", required=True, choices=sorted(FAMILIES), help="architecture")
    add.add_argument("--source", required=True, help="folder, .safetensors or .gguf file, or ORG/NAME on a hub")
    add.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help='a further key of the row, as TOML: title="Mine", variant="fp16"; may be repeated',
    )
    add.add_argument("--no-pull", action="store_true", help="leave the download to the workers")
    add.add_argument(
        "--no-rehearsal",
        action="store_true",
        help="add a model without loading it and making a small image first",
    )
    add.set_defaults(run=_add)
    remove = actions.add_parser("rm", help="remove a row from the catalogue file; its files stay")
    remove.add_argument("id")
    remove.set_defaults(run=_remove)
    pull = actions.add_parser("pull", help="fetch the files of a row from its hub, and verify them")
    pull.add_argument("id")
    pull.set_defaults(run=_pull)
    for action in (add, remove, pull):
        action.add_argument("--kind", choices=sorted(TABLES), default="model", help="kind of row (%(default)s)")
    reload = actions.add_parser("reload", help="have the service read its catalogue file now (scope admin)")
    add_service_arguments(reload)
    reload.set_defaults(run=_reload)


def _list(arguments: argparse.Namespace) -> None:
    with Client(arguments.server, key=arguments.key) as client:
        print(table([("id", "family", "state", "tasks"), *map(_row, client.models())]))


def _row(model: Json) -> tuple[str, ...]:
    state = "warm" if model["warm"] else "ready" if model["ready"] else "to be downloaded"
    if not model["available"]:
        state = f"unavailable: {model['unavailable_reason']}"
    return (model["id"], model["family"], state, ", ".join(model["tasks"]))


def _add(arguments: argparse.Namespace) -> None:
    path = _own_file()
    fields = {"id": arguments.id, "family": arguments.family, "source": arguments.source}
    fields |= dict(_read_setting(text) for text in arguments.set)
    catalogue = read_catalogue(path)
    if arguments.id in {row.id for row in getattr(catalogue, TABLES[arguments.kind])}:
        raise CatalogueError(
            f"{arguments.kind} {arguments.id!r} is in {path} already; remove it first, or edit it"
        )
    row = _new_row(arguments.kind, fields)
    for source, select in _needs(catalogue, row):
        try:
            check_access(source, select)
        except HubUnavailable as error:
            print(f"darkroom: {error}; workers fetch it when the hub answers", file=sys.stderr)
            continue
        if not arguments.no_pull:
            _fetch(arguments.id, source, select)
    is_tried = arguments.kind == "model" and not arguments.no_rehearsal
    add_row(path, arguments.kind, fields, partial(rehearse, arguments.id) if is_tried else None)
    print(f"{arguments.kind} {arguments.id} added to {path}; a running service takes it over within seconds")


def _new_row(kind: str, fields: dict[str, object]) -> AnySpec:
    """The row, as far as it can be checked without the others; the file's other checks follow."""
    kinds: dict[str, type[AnySpec]] = {"model": ModelSpec, "lora": LoraSpec, "controlnet": ControlNetSpec}
    try:
        return kinds[kind].model_validate(fields)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc'])) or 'row'}: {item['msg']}" for item in error.errors()]
        raise CatalogueError("; ".join(problems)) from None


def _read_setting(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    try:
        ((key, found),) = tomllib.loads(f"{name.strip()} = {value}").items()
    except (ValueError, tomllib.TOMLDecodeError):
        raise CatalogueError(
            f'--set must be KEY=VALUE with a value in TOML, such as title="Mine"; got {text!r}'
        ) from None
    return key, found


def _remove(arguments: argparse.Namespace) -> None:
    path = _own_file()
    remove_row(path, arguments.kind, arguments.id)
    print(f"{arguments.kind} {arguments.id} removed from {path}; its waiting jobs fail, running ones go on")


def _pull(arguments: argparse.Namespace) -> None:
    catalogue = read_catalogue(SharedSettings().catalogue)
    row = find_row(catalogue, arguments.kind, arguments.id)
    needs = _needs(catalogue, row)
    for source, select in needs:
        _fetch(arguments.id, source, select)
    if not needs:
        print(f"{arguments.id} is on this machine: {catalogue.place(row)}")


def _needs(catalogue: Catalogue, row: AnySpec) -> list[tuple[HubSource, Select]]:
    """What a row needs of hubs, and which files of it."""
    found = []
    place = catalogue.place(row)
    if isinstance(place, HubSource):
        class_name = None if isinstance(row, LoraSpec | NetworkSpec) else row.checkpoint_family.pipeline
        if isinstance(row, ControlNetSpec):
            class_name = row.class_name
        found.append((place, select_files(row, place, class_name)))
    config = None if not isinstance(row, ModelSpec) or row.config is None else catalogue.locate(row.config)
    if isinstance(config, HubSource):
        found.append((config, descriptions(None)))
    for beside in row.files_beside.values() if isinstance(row, ModelSpec) else ():
        file = catalogue.locate(beside)
        if isinstance(file, HubSource):
            found.append((file, file_beside(file)))
    return found


def _fetch(id: str, source: HubSource, select: Select) -> None:
    """Fetch and verify, with a bar on a terminal."""
    with tqdm(desc=id, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        found = snapshot.fetch(source, select, on_progress=partial(_show, bar))
    print(f"{id}: {len(found.files)} files of {source.repository} at {found.commit[:12]}, verified")


def _show(bar: tqdm, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)


def _reload(arguments: argparse.Namespace) -> None:
    with Client(arguments.server, key=arguments.key) as client:
        answer = client.call("POST", "/v1/admin/models/reload")
    for name in ("added", "removed", "changed"):
        if answer[name]:
            print(f"{'changed, used after a restart' if name == 'changed' else name}: {', '.join(answer[name])}")
    print(f"models: {', '.join(answer['models'])}")


def _own_file() -> Path:
    """The catalogue file, which must not be the one that comes with this release.

    Raises:
        CatalogueError: it is.
    """
    path = SharedSettings().catalogue
    if path.resolve() == BUILT_IN_CATALOGUE.resolve():
        raise DarkroomError(f"{path} comes with Darkroom; set DARKROOM_CATALOGUE to a file of your own")
    return path
