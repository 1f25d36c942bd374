"""`darkroom verify`: whether an image file is as it was signed, by whom, and how it was made."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from cli.client import Client, ServiceError

if TYPE_CHECKING:
    from contracts.provenance.verification import Verification

_SENTENCES = {
    "trusted": "the file is as it was signed, by a signer that is trusted",
    "intact": "the file is as it was signed; nothing vouches for its signer",
    "changed": "the file was changed after it was signed",
    "unsigned": "the file has no Content Credentials: never signed, or removed by a program that saved it",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("file", type=Path, help="a PNG, JPEG or WebP file")
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument("--root", type=Path, metavar="PEM", help="certificate to trust")
    trust.add_argument("--server", metavar="URL", help="trust the certificate of this service")
    parser.add_argument("--receipt", action="store_true", help="print the signed receipt as JSON as well")
    parser.set_defaults(run=_verify)


def _verify(arguments: argparse.Namespace) -> None:
    try:
        from contracts.provenance.verification import verify
    except ImportError:
        raise ServiceError("`darkroom verify` needs more packages: pip install 'darkroom[credentials]'") from None
    try:
        found = verify(arguments.file, _root(arguments))
    except OSError as error:
        raise ServiceError(f"{arguments.file}: {error.strerror or error}") from error
    for line in _lines(found):
        print(line)
    if arguments.receipt and found.receipt is not None:
        print(json.dumps(found.receipt, indent=1, ensure_ascii=False))
    if found.verdict in ("changed", "unsigned") or found.same_pixels is False:
        raise ServiceError(f"{arguments.file}: {_SENTENCES[found.verdict]}")


def _root(arguments: argparse.Namespace) -> str | None:
    """The certificate to trust, PEM."""
    if arguments.root is not None:
        return str(arguments.root.read_text(encoding="utf-8"))
    if arguments.server is None:
        return None
    with Client(arguments.server) as client:
        return client.root_certificate()


def _lines(found: Verification) -> list[str]:
    lines = [f"verdict    {found.verdict}: {_SENTENCES[found.verdict]}"]
    if found.problems:
        lines.append(f"problems   {', '.join(found.problems)}")
    if found.signer:
        lines.append(f"signer     {found.signer}")
    if found.receipt is not None:
        model, parameters = found.receipt["model"], found.receipt["parameters"]
        lines.append(f"made by    {model['id']} ({parameters['task']}), seed {found.receipt['seed']}")
        lines.append(f"weights    {model['sha256']}")
    if found.same_pixels is not None:
        lines.append(f"pixels     {'those' if found.same_pixels else 'not those'} of the receipt")
    return lines
