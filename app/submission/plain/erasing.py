"""The checks of a request that erases something from an image. Queues and stores nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.inputs.image import GivenImage
from app.limits.admission import Admission
from app.parsing.requests import Reading
from app.submission.checks import Delivery, RequestChecks
from app.submission.plain.networks import find_network, use_of
from contracts.requests.images.stored_image import check_mask_size
from contracts.requests.plain.erasing import EraseParameters, EraseRequest


@dataclass(frozen=True)
class CheckedErase:
    """A request that erases something and passed every check."""

    parameters: EraseParameters
    delivery: Delivery
    counts: None = None

    def require_worker(self, admission: Admission) -> None:
        """As `Checked`; a worker with less memory scales the part around the mask down."""
        job = self.parameters
        admission.require_network("model", f"eraser:{job.model}", (job.width, job.height))


@dataclass(frozen=True)
class EraseDraft:
    """A request that erases something, as it was read; `images` as in `JobDraft`."""

    reading: Reading[EraseRequest]
    images: Mapping[str, GivenImage] | None = field(default_factory=dict)

    def check(self, checks: RequestChecks) -> CheckedErase:
        """As in `Draft`."""
        rows = checks.services.catalogue.erasers
        delivery = checks.check_delivery(
            self.reading, self.images, lambda request: find_network("eraser", rows, request.model)
        )
        request = self.reading.require()
        image, mask = (delivery.images[name].stored for name in ("image", "mask_image"))
        check_mask_size(image, mask)
        parameters = EraseParameters(
            task=request.task,
            model=find_network("eraser", rows, request.model).id,
            image=image.key,
            mask_image=mask.key,
            width=image.width,
            height=image.height,
            output_format=request.output_format,
            output_quality=request.output_quality,
            input_images=(use_of("image", image), use_of("mask_image", mask)),
        )
        return CheckedErase(parameters, delivery)
