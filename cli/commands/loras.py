"""`darkroom loras`: adds, lists and removes a service's LoRAs through its API."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from cli.client import Client, Json
from cli.options.service import add_client_command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    add_command = partial(add_client_command, parser.add_subparsers(required=True, metavar="ACTION"))
    add = add_command(
        "add", _add, "upload a .safetensors file; uploaded with an admin key, it is visible to everyone"
    )
    add.add_argument("file", type=Path)
    add.add_argument("--name", help="name for use in requests (default: from the file name)")
    add_command("list", _list, "list the LoRAs that requests may use")
    remove = add_command("remove", _remove, "remove an uploaded LoRA; jobs already accepted still use it")
    remove.add_argument("name")


def _add(arguments: argparse.Namespace, client: Client) -> None:
    added = client.add_lora(arguments.file, arguments.name)
    print(added["id"])
    print(f"{_describe(added)}; visible to {added['visible_to']}", file=sys.stderr)


def _list(arguments: argparse.Namespace, client: Client) -> None:
    del arguments
    for row in client.loras():
        print(f"{row['id']:32} {_describe(row)}".rstrip())


def _remove(arguments: argparse.Namespace, client: Client) -> None:
    client.remove_lora(arguments.name)


def _describe(row: Json) -> str:
    if row["ranks"] is None:
        return str(row["family"])
    text = ", text encoders" if row["changes_text"] else ""
    kinds = [kind for kind in row.get("kinds") or () if kind != "lora"]
    ranks = [f"rank {', '.join(map(str, row['ranks']))}"] if row["ranks"] else []
    return f"{row['family']:6} {', '.join([row['layout'], *kinds, *ranks])}{text}"
