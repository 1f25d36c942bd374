"""`darkroom verify`: whether a file is as it was signed, by whom, how it was made, and whether that is true."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cli.client import Client, Json, ServiceError
from contracts.catalogue.families import Task
from contracts.requests.schema import REQUESTS

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
    parser.add_argument(
        "--again",
        metavar="URL",
        help="make the image again at this service, as its receipt says, and compare the pixels; for images made "
        "from a prompt alone, with the same models",
    )
    parser.add_argument(
        "--key", default=os.environ.get("DARKROOM_API_KEY"), help="API key for --again, or DARKROOM_API_KEY"
    )
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
    if arguments.again is not None:
        if found.receipt is None:
            raise ServiceError(f"{arguments.file}: it holds no receipt of Darkroom")
        print(f"again      {_make_again(dict(found.receipt), arguments.again, arguments.key)}")


def _make_again(receipt: Json, url: str, key: str | None) -> str:
    """Run the job of a receipt and compare; returns what to tell. Raises ServiceError where the pixels differ."""
    body = _request_of(receipt)
    with Client(url, key=key) as client:
        job = client.wait(client.submit(receipt["parameters"]["task"], body)["id"])
    if job["status"] != "completed":
        raise ServiceError(f"the image could not be made again: {job['error']['message']}")
    made = job["receipt"]
    pixels = made["pixels_sha256"][receipt["seed"] - receipt["parameters"]["seed"]]
    if pixels == receipt["pixels_sha256"]:
        return "the same pixels"
    compared = ("model", "loras", "controlnets", "device", "dtype", "kernels", "versions", "deviations")
    differing = [name for name in compared if made.get(name) != receipt.get(name)]
    reason = (
        f"; what differs here: {', '.join(differing)}" if differing else ", with the same weights and versions"
    )
    raise ServiceError(f"made again, the image has other pixels{reason}")


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
