"""What the safety check found of one image, as its job's record has it. Knows no check."""

from __future__ import annotations

from pydantic import Field

from contracts.jobs.receipt import RecordPart


class ImageSafety(RecordPart):
    """The safety check's result for an image."""

    check: str = Field(description="Name of the check.")
    score: float = Field(description="Confidence that the image must not be shown, 0 to 1.")
    threshold: float = Field(description="Minimum score of a flagged image.")
    flagged: bool = Field(description="Whether it is flagged.")
    blurred: bool = Field(description="Whether the file is a blurred one, because the image was flagged.")
