"""The safety checker that some checkpoints carry, in diffusers' layout: `safety_checker` and `feature_extractor`.

Computes on the CPU, from safetensors files alone. Images of other checkpoints are not checked.
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

from contracts.errors import NotFound

_log = logging.getLogger(__name__)


class CheckpointChecker:
    """The safety checkers of a worker's models, each loaded for its first image."""

    def __init__(self, locate: Callable[[str], Path]) -> None:
        """`locate` returns the folder of a model."""
        self._locate = locate
        self._loaded: dict[str, tuple[Any, Any] | None] = {}
        self._lock = threading.Lock()

    def score(self, image: Image.Image, model: str) -> float | None:
        """Return 1 for an image that the model's own checker flags, else 0; None where it carries no checker."""
        with self._lock, torch.inference_mode():
            if model not in self._loaded:
                self._loaded[model] = self._find(model)
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
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessor

    checker = StableDiffusionSafetyChecker.from_pretrained(
        folder / "safety_checker", local_files_only=True, use_safetensors=True
    ).eval()
    return checker, CLIPImageProcessor.from_pretrained(folder / "feature_extractor", local_files_only=True)
