"""What checks of prompts and images are, and how those of other packages are found: by entry point.

Knows no check. Those that are shipped are in `app/prompt_check.py` and, for images, `worker/safety/`.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

from contracts.errors import SettingsError

if TYPE_CHECKING:
    from PIL import Image

#: Groups of entry points. Each names a callable without arguments that returns the check.
PROMPT_CHECKS, IMAGE_CHECKS = "darkroom.prompt_checks", "darkroom.image_checks"


class PromptCheck(Protocol):
    """Check of prompts; called in several threads at once, and may take milliseconds."""

    def score(self, prompt: str) -> float:
        """Return how surely a prompt must be refused, 0 to 1."""


class ImageCheck(Protocol):
    """Check of images and of previews of them; called in several threads at once."""

    def score(self, image: Image.Image, model: str) -> float | None:
        """Return how surely an image must not be shown, 0 to 1; None where it cannot be checked.

        Args:
            image: RGB, of any size.
            model: id of the model that made it.
        """


def open_entry_point(group: str, name: str, setting: str, shipped: str) -> Any:
    """Return the check that another package offers under a name.

    Args:
        setting: the variable that names it, for the error.
        shipped: the names that need no package.

    Raises:
        SettingsError: no installed package has it, or it cannot be made.
    """
    found = {point.name: point for point in entry_points(group=group)}
    if name not in found:
        others = f", or of an installed package: {', '.join(sorted(found))}" if found else ""
        raise SettingsError(f"{setting}: no check is named {name}; one of {shipped}{others}")
    try:
        return found[name].load()()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise SettingsError(f"{setting}: the check {name} cannot be made ({reason})") from error


def flagged_key(job_id: str, number: int) -> str:
    """Return the storage key of a flagged image as it was generated; clients do not get it."""
    return f"images/{job_id}/flagged/{number}.png"
