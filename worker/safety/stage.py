"""Checks a job's images and previews before anybody sees them, and blurs or refuses those that are flagged."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from PIL import Image, ImageFilter

from contracts.jobs.failures import FailureCode, JobFailed
from contracts.jobs.image_safety import ImageSafety
from contracts.safety import ImageCheck, flagged_key
from worker.generation.results.outputs import ImageWriter, JobResult

_log = logging.getLogger(__name__)

Action = Literal["refuse", "blur", "mark"]
#: Of the longer side; a blur that leaves shapes of this size leaves nothing to see.
_BLUR_SHARE = 1 / 10


class SafetyStage:
    """The check of a worker's images. Safe in several threads, as its check is."""

    def __init__(self, name: str, check: ImageCheck, threshold: float, action: Action) -> None:
        """Build it.

        Args:
            name: of the check, for the record.
            threshold: an image is flagged from this score on.
            action: with flagged images. `refuse`: their job fails; `blur`; `mark`: the record says so, no more.
        """
        self._name, self._check, self._threshold, self._action = name, check, threshold, action

    def apply(self, result: JobResult, job_id: str, storage: ImageWriter) -> JobResult:
        """Check the images of a `generated` result; returns it with those that may be stored, and what was found.

        Flagged images that clients do not get are stored apart, for operators.

        Raises:
            JobFailed: one must not be shown, or the check fails.
            Unavailable: the storage does not take them.
        """
        if result.receipt is None:
            return result
        started = time.perf_counter()
        model = result.receipt.parameters.model
        found = [self._find(image, model) for image in result.images]
        images: list[Image.Image] = []
        for number, (image, safety) in enumerate(zip(result.images, found, strict=True)):
            is_hidden = safety is not None and safety.flagged and self._action != "mark"
            if is_hidden:
                storage.write(flagged_key(job_id, number), _png(image))
            images.append(_blurred(image) if is_hidden else image)
        self._refuse(found)
        timings = {**result.receipt.timings, "safety": round(time.perf_counter() - started, 4)}
        receipt = result.receipt.model_copy(update={"timings": timings})
        return replace(result, images=images, receipt=receipt, safety=found)

    def may_show(self, model: str) -> Callable[[Image.Image], bool]:
        """Return a function that tells whether a preview may be shown. What cannot be checked may not."""

        def check(image: Image.Image) -> bool:
            try:
                found = self._find(image, model)
            except JobFailed:
                return False
            return found is None or not found.flagged or self._action == "mark"

        return check

    def _find(self, image: Image.Image, model: str) -> ImageSafety | None:
        """What is said of an image; None: the check does not apply. Raises JobFailed where it fails."""
        try:
            score = self._check.score(image, model)
        except Exception as error:
            _log.exception("the safety check %s failed", self._name)
            message = "the safety check of images failed, so none are shown; the worker's log has the details"
            raise JobFailed(FailureCode.INTERNAL, message) from error
        if score is None:
            return None
        flagged = score >= self._threshold
        return ImageSafety(
            check=self._name,
            score=round(score, 4),
            threshold=self._threshold,
            flagged=flagged,
            blurred=flagged and self._action == "blur",
        )

    def _refuse(self, found: Sequence[ImageSafety | None]) -> None:
        for number, safety in enumerate(found):
            if self._action == "refuse" and safety is not None and safety.flagged:
                message = (
                    f"the safety check of images flagged image {number} (score {safety.score:g}, threshold "
                    f"{safety.threshold:g}); request something else, or ask the operator to review it"
                )
                raise JobFailed(FailureCode.FLAGGED, message)


def _blurred(image: Image.Image) -> Image.Image:
    """An image of the same size in which nothing can be recognised, and from which nothing can be recovered."""
    radius = max(image.size) * _BLUR_SHARE
    side = max(1, round(image.width / radius)), max(1, round(image.height / radius))
    coarse = image.resize(side, Image.Resampling.BOX)  # what is left to be recovered are a few colours
    return coarse.resize(image.size, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(radius / 4))


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
