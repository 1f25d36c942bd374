"""A check of images by a classifier from a local folder: CLIP with a head, ViT, ResNet, or the like.

Computes on the CPU, from safetensors files alone; downloads nothing and runs no code of the folder.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from contracts.errors import SettingsError


class Classifier:
    """A classifier and which of its labels are flagged."""

    def __init__(self, folder: Path, labels: Sequence[str]) -> None:
        """Load it.

        Args:
            folder: as `save_pretrained` of transformers writes it: configuration, processor, safetensors.
            labels: that are flagged.

        Raises:
            SettingsError: the folder has no such classifier, or it does not know a label.
        """
        try:
            self._model = AutoModelForImageClassification.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            ).eval()
            self._processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).partition("\n")[0]
            raise SettingsError(
                f"DARKROOM_WORKER_IMAGE_CHECK_FOLDER: {folder} has no image classifier as safetensors: {reason}"
            ) from error
        known = {str(label): int(index) for index, label in self._model.config.id2label.items()}
        unknown = [label for label in labels if label not in known]
        if unknown or not labels:
            named = f"has no label {unknown[0]}" if unknown else "needs labels to flag"
            raise SettingsError(
                f"DARKROOM_WORKER_IMAGE_CHECK_LABELS: the classifier {named}; it knows {', '.join(known)}"
            )
        self._flagged = [known[label] for label in labels]
        self._lock = threading.Lock()

    def score(self, image: Image.Image, model: str) -> float:
        """Return the probability of the flagged labels together, 0 to 1."""
        del model
        with self._lock, torch.inference_mode():
            logits = self._model(**self._processor(images=image.convert("RGB"), return_tensors="pt")).logits[0]
            if self._model.config.problem_type == "multi_label_classification":
                return float(logits.sigmoid()[self._flagged].max())
            return float(logits.softmax(0)[self._flagged].sum())
