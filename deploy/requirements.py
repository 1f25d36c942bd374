"""Prints what `pyproject.toml` requires, with the extras named, for an image that installs no Darkroom package.

    python3 deploy/requirements.py api s3

The images copy the packages they run, so that the API's holds no worker and the worker's no API.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def read_requirements(project: Path, extras: list[str]) -> list[str]:
    """Requirements of the project itself and of some extras; raises KeyError for an extra that there is not."""
    table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    return [*table["dependencies"], *(line for extra in extras for line in table["optional-dependencies"][extra])]


if __name__ == "__main__":
    print("\n".join(read_requirements(Path("pyproject.toml"), sys.argv[1:])))  # noqa: T201
