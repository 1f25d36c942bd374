"""The safety checker that some checkpoints carry, in diffusers' layout: `safety_checker` and `feature_extractor`.

Computes on the CPU, from safetensors files alone. Images of other checkpoints are checked by that of another
folder, such as CompVis/stable-diffusion-safety-checker, or not at all.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from contracts.errors import NotFound, SettingsError

_log = logging.getLogger(__name__)


class CheckpointChecker:
    """The safety checkers of a worker's models, each loaded for its first image."""

    def __init__(self, locate: Callable[[str], Path], folder: Path | None = None) -> None:
        """Load what is for all models; the others' checkers wait for an image.

        Args:
            locate: returns the folder of a model.
            folder: of the checker of models that carry none: configuration, processor, safetensors.

        Raises:
            SettingsError: the folder has no checker.
        """
        self._locate = locate
        self._for_others = None if folder is None else _open_folder(folder)
        self._loaded: dict[str, tuple[Any, Any] | None] = {}
        self._lock = threading.Lock()

    def score(self, image: Image.Image, model: str) -> float | None:
        """Return 1 for an image that the model's checker flags, else 0; None where there is none."""
        with self._lock, torch.inference_mode():
            if model not in self._loaded:
                self._loaded[model] = self._find(model) or self._for_others
                if self._loaded[model] is None:
                    _log.warning("images of %s are not checked: its checkpoint carries no safety checker", model)
            loaded = self._loaded[model]
            if loaded is None:
                return None
            checker, processor = loaded
            pixels = processor(images=image.convert("RGB"), return_tensors="pt").pixel_values
            # It blackens what it flags, in place: it is given something of its own.
            _, flagged = checker(images=np.zeros((1, 1, 1, 3)), clip_input=pixels)
        return float(flagged[0])

    def _find(self, model: str) -> tuple[Any, Any] | None:
        try:
            return _load(self._locate(model))
        except NotFound:  # an upscaler's row, which names no checkpoint
            return None


def _load(folder: Path) -> tuple[Any, Any] | None:
    """The checker of a checkpoint and what prepares images for it."""
    if not (folder / "safety_checker" / "config.json").is_file():
        return None
    return _read(folder / "safety_checker", folder / "feature_extractor")


def _open_folder(folder: Path) -> tuple[Any, Any]:
    """The checker of a folder of its own, and what prepares images for it."""
    try:
        return _read(folder, folder)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        message = f"DARKROOM_WORKER_IMAGE_CHECK_FOLDER: {folder} has no safety checker as safetensors: {reason}"
        raise SettingsError(message) from error


def _read(checker: Path, processor: Path) -> tuple[Any, Any]:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessor

    found = StableDiffusionSafetyChecker.from_pretrained(checker, local_files_only=True, use_safetensors=True)
    return found.eval(), CLIPImageProcessor.from_pretrained(processor, local_files_only=True)
