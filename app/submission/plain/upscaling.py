"""The checks of a request for an upscaled image. Queues and stores nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from app.inputs.image import GivenImage
from app.limits.admission import Admission
from app.parsing.requests import Reading
from app.submission.checks import Delivery, RequestChecks
from app.submission.plain.networks import find_network, use_of
from contracts.catalogue.catalogue import UpscalerSpec
from contracts.errors import FieldProblem, InvalidRequest
from contracts.requests.images.stored_image import StoredImage
from contracts.requests.plain.upscaling import UpscaleParameters, UpscaleRequest


@dataclass(frozen=True)
class CheckedUpscale:
    """A request for an upscaled image that passed every check."""

    parameters: UpscaleParameters
    delivery: Delivery
    counts: None = None

    def require_worker(self, admission: Admission) -> None:
        """As `Checked`; a worker with less memory takes smaller tiles."""
        job = self.parameters
        size = (job.width // job.scale, job.height // job.scale)
        admission.require_network("model", f"upscaler:{job.model}", size)


@dataclass(frozen=True)
class UpscaleDraft:
    """A request for an upscaled image as it was read; `images` as in `JobDraft`."""

    reading: Reading[UpscaleRequest]
    images: Mapping[str, GivenImage] | None = field(default_factory=dict)

    def check(self, checks: RequestChecks) -> CheckedUpscale:
        """As in `Draft`."""
        rows = checks.services.catalogue.upscalers
        delivery = checks.check_delivery(
            self.reading, self.images, lambda request: find_network("upscaler", rows, request.model)
        )
        request = self.reading.require()
        row, image = find_network("upscaler", rows, request.model), delivery.images["image"].stored
        _check_size(image, row, checks.services.settings.max_upscaled_pixels)
        parameters = UpscaleParameters(
            task=request.task,
            model=row.id,
            image=image.key,
            scale=row.scale,
            width=image.width * row.scale,
            height=image.height * row.scale,
            output_format=request.output_format,
            output_quality=request.output_quality,
            input_images=(use_of("image", image),),
        )
        return CheckedUpscale(parameters, delivery)


def _check_size(image: StoredImage, row: UpscalerSpec, max_pixels: int) -> None:
    """Check the size of the result.

    Raises:
        InvalidRequest: it would have more pixels than this service allows.
    """
    width, height = image.width * row.scale, image.height * row.scale
    if width * height <= max_pixels:
        return
    allowed = max_pixels // row.scale**2
    smaller = math.sqrt(allowed / (image.width * image.height))
    message = (
        f"is {image.width} × {image.height}, and {row.scale} times as large it would have {width} × {height} = "
        f"{width * height} pixels; an upscaled image may have {max_pixels}: scale it down to "
        f"{int(image.width * smaller)} × {int(image.height * smaller)}"
    )
    raise InvalidRequest([FieldProblem("image", message, f"width × height ≤ {allowed}")])
