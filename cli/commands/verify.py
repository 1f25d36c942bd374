"""`darkroom verify`: whether a file is as it was signed, by whom, how it was made, and whether that is true."""

from __future__ import annotations

import argparse
import io
import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.client import Client, Json, ServiceError
from contracts.catalogue.families import Task
from contracts.requests.schema import REQUESTS

if TYPE_CHECKING:
    from contracts.provenance.receipts.verification import ReceiptVerification
    from contracts.provenance.verification import Verification

_SENTENCES = {
    "trusted": "the file is as it was signed, by a signer that is trusted",
    "intact": "the file is as it was signed; nothing vouches for its signer",
    "changed": "the file was changed after it was signed",
    "unsigned": "the file has no Content Credentials: never signed, or removed by a program that saved it",
}
_RECEIPT_SENTENCES = {
    "trusted": "it is this image's, signed by a key of the service",
    "intact": "it is this image's, as it was signed; nothing vouches for the key",
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
        help="make the image again at this service, as its receipt says, and compare the pixels; for images made "
        "from a prompt alone, with the same models",
    )
    parser.add_argument(
        "--steps",
        choices=("1", "all"),
        help="make it again, at --again or else DARKROOM_SERVER or http://127.0.0.1:8000, and compare the latents "
        "after one random step, or after each; both services must sign receipts",
    )
    parser.add_argument(
        "--key", default=os.environ.get("DARKROOM_API_KEY"), help="API key for --again, or DARKROOM_API_KEY"
    )
    parser.set_defaults(run=_verify)


def _verify(arguments: argparse.Namespace) -> None:
    again = arguments.again
    if again is None and arguments.steps is not None:
        again = os.environ.get("DARKROOM_SERVER", "http://127.0.0.1:8000")
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
            raise ServiceError(f"{arguments.file}: it holds no receipt of Darkroom")
        try:
            told = _make_again(arguments, again, dict(receipt), signed)
        except (KeyError, TypeError, IndexError, ValueError):
            raise _no_receipt_of_ours(arguments.file) from None
        print(f"again      {told}")


def _no_receipt_of_ours(path: Path) -> ServiceError:
    return ServiceError(f"{path}: its receipt is not one that Darkroom writes")


def _make_again(arguments: argparse.Namespace, url: str, receipt: Json, signed: ReceiptVerification) -> str:
    """Run the job of a receipt and compare; returns what to tell. Raises ServiceError where they differ."""
    body = _request_of(receipt)
    if arguments.steps is not None and not signed.steps:
        raise ServiceError(f"{arguments.file}: no signed receipt says what its steps were")
    with Client(url, key=arguments.key) as client:
        job = client.wait(client.submit(receipt["parameters"]["task"], body)["id"])
        if job["status"] != "completed":
            raise ServiceError(f"the image could not be made again: {job['error']['message']}")
        index = receipt["seed"] - receipt["parameters"]["seed"]
        file = client.download(job["images"][index])
    made = job["receipt"]
    has_same_pixels = made["pixels_sha256"][index] == receipt["pixels_sha256"]
    step = None if arguments.steps is None else _differing_step(arguments.steps, signed.steps, file)
    if has_same_pixels and step is None:
        return "the same pixels" if arguments.steps is None else _same_steps(arguments.steps, len(signed.steps))
    return _explain(arguments.file, file, _Differences(receipt, made, signed, step))


@dataclass(frozen=True)
class _Differences:
    """An image that came out with other bytes.

    Attributes:
        step: the first of those compared whose latents differ; None: none does, or none was compared.
    """

    receipt: Json
    made: Json
    signed: ReceiptVerification
    step: int | None

    @property
    def reasons(self) -> list[str]:
        """Why an honest image may have other bytes here."""
        from contracts.provenance.receipts.step_comparison import differing

        claims = self.signed.claims
        placed = {"placement": claims["placement"]} if "placement" in claims else {}
        joined = ["calls joined with other jobs"] if claims.get("joined") else []
        return [*differing({**self.receipt, **placed}, self.made), *joined]


def _explain(path: Path, file: bytes, differences: _Differences) -> str:
    """Say that the bytes differ by rounding alone, where they may; raises ServiceError where they may not."""
    from PIL import Image

    from contracts.provenance.receipts.step_comparison import WITHIN_ERROR, is_within_error

    receipt, made, reasons = differences.receipt, differences.made, differences.reasons
    weights = [name for name in ("model", "loras", "controlnets") if made.get(name) != receipt.get(name)]
    if reasons and not weights and receipt["parameters"].get("output_format") == "png":
        with Image.open(path) as claimed, Image.open(io.BytesIO(file)) as image:
            if is_within_error(claimed, image, receipt["dtype"]):
                return f"{WITHIN_ERROR}; what differs here: {', '.join(reasons)}"
    told = [*weights, *reasons]
    reason = f"; what differs here: {', '.join(told)}" if told else ", with the same weights and versions"
    if differences.step is not None:
        raise ServiceError(f"not the same: step {differences.step}{reason}")
    raise ServiceError(f"made again, the image has other pixels{reason}")


def _differing_step(which: str, claimed: Sequence[str], file: bytes) -> int | None:
    """The first step whose latents differ; raises ServiceError where the service that made it again names none."""
    from contracts.provenance.receipts.step_comparison import first_difference
    from contracts.provenance.receipts.verification import verify_receipt_of

    made = verify_receipt_of(file, []).steps
    if not made:
        raise ServiceError(
            "the service that made it again signs no receipts, and its steps are not known: "
            "it needs DARKROOM_RECEIPTS=signed"
        )
    count = max(len(claimed), len(made))
    steps = range(1, count + 1) if which == "all" else [random.SystemRandom().randint(1, count)]
    return first_difference(claimed, made, steps)


def _same_steps(which: str, count: int) -> str:
    from contracts.provenance.receipts.step_comparison import SAME_BYTES

    return f"{SAME_BYTES}, {'after each' if which == 'all' else 'after one'} of {count} steps"


def _request_of(receipt: Json) -> Json:
    """The request that a receipt is of.

    Raises:
        ServiceError: it was made from other images, or its prompts are only known by their hash.
    """
    parameters = receipt["parameters"]
    task = Task(parameters["task"])
    if parameters.get("image") or parameters.get("controls") or parameters.get("references"):
        raise ServiceError(
            "only images made from a prompt alone can be made again: this one needs its input images"
        )
    if str(parameters["prompt"]).startswith("sha256:"):
        raise ServiceError("the receipt has only the hash of the prompt: the image cannot be made again from it")
    fields = {
        name: parameters[name] for name in REQUESTS[task].model_fields if parameters.get(name) not in (None, [])
    }
    loras = [{"name": lora["name"], "scale": lora["scale"]} for lora in parameters.get("loras", ())]
    return {**fields, "loras": loras, "batchable": False}


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
        lines.append(f"made by    {model['id']} ({parameters['task']}), seed {receipt['seed']}")
        lines.append(f"weights    {model['sha256']}")
    if found.same_pixels is not None:
        lines.append(f"pixels     {'those' if found.same_pixels else 'not those'} of the receipt")
    return [line for line in lines if line]
