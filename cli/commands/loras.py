"""`darkroom loras`: adds, lists and removes a service's LoRAs through its API."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cli.client import Client, Json
from cli.job_run import add_service_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    add = actions.add_parser(
        "add", help="upload a .safetensors file; uploaded with an admin key, it is visible to everyone"
    )
    add.add_argument("file", type=Path)
    add.add_argument("--name", help="name for use in requests (default: from the file name)")
    add.set_defaults(run=_add)
    actions.add_parser("list", help="list the LoRAs that requests may use").set_defaults(run=_list)
    remove = actions.add_parser("remove", help="remove an uploaded LoRA; jobs already accepted still use it")
    remove.add_argument("name")
    remove.set_defaults(run=_remove)
    for action in actions.choices.values():
        add_service_arguments(action)


def _add(arguments: argparse.Namespace) -> None:
    with Client(arguments.server, key=arguments.key) as client:
        added = client.add_lora(arguments.file, arguments.name)
    print(added["id"])
    print(f"{_describe(added)}; visible to {added['visible_to']}", file=sys.stderr)


def _list(arguments: argparse.Namespace) -> None:
    with Client(arguments.server, key=arguments.key) as client:
        for row in client.loras():
            print(f"{row['id']:32} {_describe(row)}".rstrip())


def _remove(arguments: argparse.Namespace) -> None:
    with Client(arguments.server, key=arguments.key) as client:
        client.remove_lora(arguments.name)


def _describe(row: Json) -> str:
    if row["ranks"] is None:
        return str(row["family"])
    text = ", text encoders" if row["changes_text"] else ""
    kinds = [kind for kind in row.get("kinds") or () if kind != "lora"]
    ranks = [f"rank {', '.join(map(str, row['ranks']))}"] if row["ranks"] else []
    return f"{row['family']:6} {', '.join([row['layout'], *kinds, *ranks])}{text}"
