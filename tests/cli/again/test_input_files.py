"""Files are matched with a receipt's images by their hashes, before anything is sent anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.again.input_files import InputFile, place_inputs, read_files
from cli.client import Client, ServiceError
from contracts.catalogue.families import Task
from contracts.catalogue.reader import read_catalogue
from contracts.requests.defaults import resolve
from contracts.requests.images.stored_image import StoredImage
from contracts.requests.rebuilding import request_fields
from contracts.requests.schema import REQUESTS
from contracts.settings import BUILT_IN_CATALOGUE

RIGHT, WRONG = InputFile(Path("right.png"), b"right"), InputFile(Path("wrong.png"), b"wrong")


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ([], f"the receipt's image \\(SHA-256 {RIGHT.sha256}\\) must be given"),
        (
            [WRONG],
            f"wrong.png \\(SHA-256 {WRONG.sha256}\\) is not an input image of the receipt; the receipt's image",
        ),
        ([RIGHT, WRONG], "wrong.png .* is not an input image of the receipt$"),
    ],
)
def test_other_files_are_refused_by_name(files: list[InputFile], told: str) -> None:
    model, image = read_catalogue(BUILT_IN_CATALOGUE).model("shapes-sdxl"), StoredImage("x", 64, 64)
    request = REQUESTS[Task.IMG2IMG].model_validate({"prompt": "x", "image": "x"})
    job = resolve(request, model, {"image": image}).model_copy(update={"image": f"sha256:{RIGHT.sha256}"})
    with Client("http://127.0.0.1:9") as nowhere, pytest.raises(ServiceError, match=told):
        place_inputs(nowhere, job, request_fields(job), files)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"photo.png: No such file"):
        read_files([tmp_path / "photo.png"])
