"""Matches files with the input images that a receipt names by their hashes, and uploads those that match.

An image is named by the hash of its file, a mask by that of its stored form, which the service makes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.client import Client, Json, ServiceError
from contracts.requests.parameters import JobParameters
from contracts.requests.rebuilding import images_of, is_mask, place_images


@dataclass(frozen=True)
class InputFile:
    """A file that a person has given."""

    path: Path
    data: bytes

    @property
    def sha256(self) -> str:
        """Of its bytes."""
        return hashlib.sha256(self.data).hexdigest()


def read_files(paths: Iterable[Path]) -> list[InputFile]:
    """Read them; raises ServiceError where one cannot be read."""
    try:
        return [InputFile(path, path.read_bytes()) for path in paths]
    except OSError as error:
        raise ServiceError(f"{error.filename}: {error.strerror}") from error


def place_inputs(client: Client, parameters: JobParameters, fields: Json, files: Sequence[InputFile]) -> None:
    """Put uploads of the files in place of the request's images; nothing is uploaded unless all images are there.

    Raises:
        ServiceError: an image that the receipt names is not among the files, or a file is none of its images.
    """
    needed = {path: name.removeprefix("sha256:") for path, name in images_of(parameters).items()}
    images = {path: sha256 for path, sha256 in needed.items() if not is_mask(path)}
    masks = {path: sha256 for path, sha256 in needed.items() if is_mask(path)}
    by_hash = {file.sha256: file for file in files}
    missing = [f"{path} (SHA-256 {sha256})" for path, sha256 in images.items() if sha256 not in by_hash]
    unused = [file for file in files if file.sha256 not in images.values()]
    if missing or (unused and not masks):
        raise _not_the_inputs(missing, unused)
    names = _upload_masks(client, masks, unused or files)
    for path, sha256 in images.items():
        names[path] = client.upload_image(by_hash[sha256].data)["id"]
    place_images(fields, names)


def _upload_masks(client: Client, masks: Mapping[str, str], files: Sequence[InputFile]) -> dict[str, str]:
    """Upload the files as masks until all are found; raises ServiceError where one is missing or is not a mask."""
    names: dict[str, str] = {}
    unused = []
    for file in files if masks else ():
        try:
            upload = client.upload_image(file.data, is_mask=True)
        except ServiceError as error:
            raise ServiceError(f"{file.path}, read as a mask: {error}") from error
        found = {path: upload["id"] for path, sha256 in masks.items() if upload["sha256"] == sha256}
        unused += [] if found else [file]
        names |= found
    missing = [f"{path} (SHA-256 {sha256} as stored)" for path, sha256 in masks.items() if path not in names]
    if missing or unused:
        raise _not_the_inputs(missing, unused)
    return names


def _not_the_inputs(missing: Sequence[str], unused: Sequence[InputFile]) -> ServiceError:
    told = [f"{file.path} (SHA-256 {file.sha256}) is not an input image of the receipt" for file in unused]
    if missing:
        told.append(f"the receipt's {', '.join(missing)} must be given with --input")
    return ServiceError(f"not the same inputs, so nothing was made again: {'; '.join(told)}")
