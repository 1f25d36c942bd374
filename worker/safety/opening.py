"""Opens the check of images that the settings name. Imports what it computes with only where there is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from contracts.errors import SettingsError
from contracts.safety import IMAGE_CHECKS, ImageCheck, open_entry_point
from worker.safety.stage import SafetyStage
from worker.settings import WorkerSettings


def open_safety(settings: WorkerSettings, locate: Callable[[str], Path]) -> SafetyStage | None:
    """Return the stage; None where images are not checked.

    Args:
        locate: returns the folder of a model.

    Raises:
        SettingsError: no check has this name, or it cannot be loaded.
    """
    if settings.image_check == "off":
        return None
    check = _open(settings, locate)
    return SafetyStage(settings.image_check, check, settings.image_check_threshold, settings.image_check_action)


def _open(settings: WorkerSettings, locate: Callable[[str], Path]) -> ImageCheck:
    name = settings.image_check
    if name == "checkpoint":
        from worker.safety.checkpoint_checker import CheckpointChecker

        return CheckpointChecker(locate, settings.image_check_folder)
    if name == "classifier":
        from worker.safety.classifier import Classifier

        if settings.image_check_folder is None:
            raise SettingsError("DARKROOM_WORKER_IMAGE_CHECK=classifier needs DARKROOM_WORKER_IMAGE_CHECK_FOLDER")
        return Classifier(settings.image_check_folder, settings.image_check_labels)
    check: ImageCheck = open_entry_point(
        IMAGE_CHECKS, name, "DARKROOM_WORKER_IMAGE_CHECK", "off, checkpoint, classifier"
    )
    return check
