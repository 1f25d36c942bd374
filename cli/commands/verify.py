"""`darkroom verify`: whether a file is as it was signed, by whom, how it was made, and whether that is true."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cli.again.comparison import Claim
from cli.again.run import make_again
from cli.client import Client, ServiceError

if TYPE_CHECKING:
    from contracts.provenance.receipts.verification import ReceiptVerification
    from contracts.provenance.verification import Verification

_SENTENCES = {
    "trusted": "the file is unchanged since it was signed, and its signer is trusted",
    "intact": "the file is unchanged since it was signed; its signer is unknown",
    "changed": "the file was changed after it was signed",
    "unsigned": "the file has no Content Credentials: never signed, or removed by a program that saved it",
}
_RECEIPT_SENTENCES = {
    "trusted": "it belongs to this image, and was signed with a key of the service",
    "intact": "it belongs to this image and is unchanged since it was signed; the key is unknown",
    "changed": "this is not what was signed",
    "unsigned": "not signed by itself",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("file", type=Path, help="a PNG, JPEG or WebP file")
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument("--root", type=Path, metavar="PEM", help="certificate to trust")
    trust.add_argument("--server", metavar="URL", help="trust the certificate and the keys of this service")
    parser.add_argument(
        "--keys",
        type=Path,
        metavar="FILE",
        help="keys to trust: a copy of a service's /.well-known/darkroom/keys.json",
    )
    parser.add_argument("--receipt", action="store_true", help="print the signed receipt as JSON as well")
    parser.add_argument(
        "--again",
        metavar="URL",
        help="repeat the image from its receipt at this service, which must have the same models, "
        "and compare the pixels",
    )
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="an input of the image: image, mask, control image or reference; give this option "
        "once for each. Hashes are first compared with the receipt's",
    )
    parser.add_argument(
        "--steps",
        choices=("1", "all"),
        help="repeat the image, at --again or else DARKROOM_SERVER or http://127.0.0.1:8000, and "
        "compare the latents after one random step, or after each; both services must sign "
        "receipts",
    )
    parser.add_argument(
        "--latents",
        type=Path,
        metavar="FILE",
        help="with --steps 1: the job's kept latents (darkroom jobs fetch); they are compared "
        "with the receipt's, and one random step is computed from them instead of from the "
        "start",
    )
    parser.add_argument(
        "--key", default=os.environ.get("DARKROOM_API_KEY"), help="API key for --again, or DARKROOM_API_KEY"
    )
    parser.set_defaults(run=_verify)


def _verify(arguments: argparse.Namespace) -> None:
    again = arguments.again
    if again is None and arguments.steps is not None:
        again = os.environ.get("DARKROOM_SERVER", "http://127.0.0.1:8000")
    if again is None and arguments.input:
        raise ServiceError("--input needs --again URL or --steps, which make the image again")
    if arguments.latents is not None and arguments.steps != "1":
        raise ServiceError("--latents needs --steps 1")
    try:
        from contracts.provenance.receipts.verification import verify_receipt
        from contracts.provenance.verification import verify
    except ImportError:
        raise ServiceError("`darkroom verify` needs more packages: pip install 'darkroom[credentials]'") from None
    try:
        found, signed = verify(arguments.file, _root(arguments)), verify_receipt(arguments.file, _keys(arguments))
    except OSError as error:
        raise ServiceError(f"{arguments.file}: {error.strerror or error}") from error
    receipt = signed.receipt or found.receipt
    try:
        lines = _lines(found, signed)
    except (KeyError, TypeError):
        raise _no_receipt_of_ours(arguments.file) from None
    for line in lines:
        print(line)
    if arguments.receipt and receipt is not None:
        print(json.dumps(receipt, indent=1, ensure_ascii=False))
    if signed.verdict == "changed":
        raise ServiceError(f"{arguments.file}: {', '.join(signed.problems)}: {_RECEIPT_SENTENCES['changed']}")
    is_unsigned = found.verdict == "unsigned" and signed.verdict == "unsigned"
    if found.verdict == "changed" or is_unsigned or found.same_pixels is False:
        raise ServiceError(f"{arguments.file}: {_SENTENCES[found.verdict]}")
    if again is not None:
        if receipt is None:
            raise ServiceError(f"{arguments.file}: it has no receipt of Darkroom")
        try:
            told = make_again(Claim(arguments.file, dict(receipt), signed), again, arguments)
        except (KeyError, TypeError, IndexError, ValueError):
            raise _no_receipt_of_ours(arguments.file) from None
        print(f"again      {told}")


def _no_receipt_of_ours(path: Path) -> ServiceError:
    return ServiceError(f"{path}: its receipt is not one that Darkroom writes")


def _root(arguments: argparse.Namespace) -> str | None:
    """The certificate to trust, PEM."""
    if arguments.root is not None:
        return str(arguments.root.read_text(encoding="utf-8"))
    if arguments.server is None:
        return None
    with Client(arguments.server) as client:
        return client.root_certificate()


def _keys(arguments: argparse.Namespace) -> list[dict[str, str]]:
    """The public keys to trust."""
    keys: list[dict[str, str]] = []
    if arguments.keys is not None:
        try:
            keys += json.loads(arguments.keys.read_text(encoding="utf-8"))["keys"]
        except (OSError, ValueError, KeyError, TypeError):
            raise ServiceError(
                f"{arguments.keys}: it is not a JWK Set, such as /.well-known/darkroom/keys.json"
            ) from None
    if arguments.server is not None:
        with Client(arguments.server) as client:
            keys += client.receipt_keys()
    return keys


def _lines(found: Verification, signed: ReceiptVerification) -> list[str]:
    lines = [f"verdict    {found.verdict}: {_SENTENCES[found.verdict]}"]
    if found.problems:
        lines.append(f"problems   {', '.join(found.problems)}")
    if found.signer:
        lines.append(f"signer     {found.signer}")
    if signed.verdict != "unsigned":
        lines.append(f"receipt    {signed.verdict}: {_RECEIPT_SENTENCES[signed.verdict]}")
        lines.append(f"key        {signed.key_id}" if signed.key_id else "")
    receipt = signed.receipt or found.receipt
    if receipt is not None:
        model, parameters = receipt["model"], receipt["parameters"]
        seed = f", seed {receipt['seed']}" if "seed" in receipt else ""  # an upscaled image has none
        lines.append(f"made by    {model['id']} ({parameters['task']}){seed}")
        lines.append(f"weights    {model['sha256']}")
    if found.same_pixels is not None:
        lines.append(f"pixels     {'those' if found.same_pixels else 'not those'} of the receipt")
    return [line for line in lines if line]
