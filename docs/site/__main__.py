"""`python -m docs.site`: builds the documentation into `build/site`, without a network; `--serve` shows it."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from docs.site.collect import ROOT, collect

_CONFIGURATION = Path(__file__).with_name("zensical.toml")


def main() -> int:
    """Build the site and return the exit status: 1 where a link or an anchor is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help="then serve it on loopback, until Ctrl-C")
    arguments = parser.parse_args()
    build = ROOT / "build"
    collect(build / "docs")
    shutil.copyfile(_CONFIGURATION, build / "zensical.toml")
    command = ["serve"] if arguments.serve else ["build", "--clean", "--strict"]
    done = subprocess.run(  # noqa: S603  # our own configuration
        [sys.executable, "-m", "zensical", *command, "--config-file", "zensical.toml"], cwd=build, check=False
    )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
