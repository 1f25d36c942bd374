"""The stored parameters of what lists of a request hold, with the keys of images and files in the storage."""

from __future__ import annotations

from pydantic import Field

from contracts.catalogue.families import Mode
from contracts.catalogue.rows.networks import PLAIN_UPSCALERS
from contracts.left_out_fields import LeftOutIfFalse, OrLeftOut
from contracts.requests.entries import Cascade, Control, Hires, IpAdapter, Lora, StepCheck, TextualInversion
from contracts.requests.strict_model import STORED, StrictModel

#: Between the id and the hash of an uploaded ControlNet; ids have none.
_CONTENT = "@"


class ControlParameters(Control):
    """A ControlNet of a job; `image` is a storage key, or null for a ControlNet of kind `inpaint`.

    With a preprocessor, `image` is what it made, and `preprocess_options` are all of its options; where the
    preprocessor is a model, which runs in the job, `image` is what it makes the control image from.
    """

    model_config = STORED

    source: OrLeftOut[str] = Field(
        None,
        description="Storage key of the image that the preprocessor made the control image from; absent where the "
        "job itself makes it.",
    )
    key: OrLeftOut[str] = Field(
        None, description="Storage key of an uploaded file; absent for a ControlNet of the catalogue."
    )
    sha256: OrLeftOut[str] = Field(
        None, description="SHA-256 of the uploaded file, which the job uses even if the name is uploaded again."
    )
    values: OrLeftOut[int] = Field(None, description="Number of values in the uploaded file.")
    is_t2i_adapter: LeftOutIfFalse = Field(
        False, description="Whether the uploaded file is a T2I-Adapter; left out for a ControlNet."
    )

    @property
    def name(self) -> str:
        """Id of its row."""
        return self.controlnet

    @property
    def component(self) -> str:
        """What its weights are called in memory: two owners may have given the same id to different files."""
        return self.controlnet if self.sha256 is None else f"{self.controlnet}{_CONTENT}{self.sha256}"

    @property
    def is_made_in_job(self) -> bool:
        """Whether the job makes the control image itself, with a preprocessor that is a model."""
        return self.preprocess is not None and self.source is None


def is_upload(component: str) -> bool:
    """Whether a `ControlParameters.component` is an uploaded one."""
    return _CONTENT in component


class ReferenceParameters(StrictModel):
    """A reference image of a job."""

    model_config = STORED

    image: str = Field(description="Storage key of the image.")
    width: int = Field(description="Width in pixels at which the model reads it.")
    height: int = Field(description="Height in pixels at which the model reads it.")
    scaled_by_pipeline: LeftOutIfFalse = Field(
        False, description="Whether the pipeline itself scales it to this size; otherwise it is scaled before."
    )


class IpAdapterParameters(IpAdapter):
    """An IP-Adapter of a job; `images` and `mask` are storage keys."""

    model_config = STORED

    key: OrLeftOut[str] = Field(
        None, description="Storage key of an uploaded file; absent for an IP-Adapter of the catalogue."
    )
    sha256: OrLeftOut[str] = Field(
        None, description="SHA-256 of the uploaded file, which the job uses even if the name is uploaded again."
    )
    values: OrLeftOut[int] = Field(
        None, description="Values that one image of an uploaded one takes on the device."
    )
    image_encoder: OrLeftOut[str] = Field(
        None, description="Name of the operator's image encoder that an uploaded one is used with."
    )


class HiresParameters(Hires):
    """The second pass of a job."""

    model_config = STORED

    width: int = Field(description="Width of the images that it makes, in pixels.")
    height: int = Field(description="Height of the images that it makes, in pixels.")

    @property
    def network(self) -> str | None:
        """Id of the upscaler that enlarges; None where it needs none."""
        return None if self.upscaler in PLAIN_UPSCALERS else self.upscaler

    def changes(self, mode: Mode, num_inference_steps: int) -> dict[str, object]:
        """Parameters by which its stage differs from the job; it is an img2img whatever the job's mode."""
        del mode
        return {
            "mode": Mode.IMG2IMG,
            "width": self.width,
            "height": self.height,
            "strength": self.strength,
            "num_inference_steps": self.steps or num_inference_steps,
            "hires": None,
        }


class CascadeParameters(Cascade):
    """The second model of a job, which makes larger images of the first one's."""

    model_config = STORED

    width: int = Field(description="Width of the images that it makes, in pixels.")
    height: int = Field(description="Height of the images that it makes, in pixels.")

    def changes(self, mode: Mode, num_inference_steps: int) -> dict[str, object]:
        """Parameters by which its stage differs from the job."""
        del mode, num_inference_steps
        return {
            "model": self.model,
            "width": self.width,
            "height": self.height,
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance_scale,
            "dynamic_thresholding": self.dynamic_thresholding,
            **({} if self.strength is None else {"strength": self.strength}),
        }


class StepCheckParameters(StepCheck):
    """The step that a job makes again; `latents` is a storage key."""

    model_config = STORED


class LoraParameters(Lora):
    """A LoRA of a job."""

    model_config = STORED

    key: str | None = Field(None, description="Storage key of an uploaded file; null for a LoRA of the catalogue.")
    sha256: str | None = Field(
        None,
        description="SHA-256 of the uploaded file, which the job uses even if the name is uploaded again; null "
        "for a LoRA of the catalogue.",
    )
    values: int | None = Field(
        None, description="Number of values in the uploaded file; null for a LoRA of the catalogue."
    )


class TextualInversionParameters(TextualInversion):
    """A textual inversion of a job."""

    model_config = STORED

    words: tuple[str, ...] = Field(description="Words in the prompts that stand for it.")
    key: str | None = Field(None, description="Storage key of an uploaded file; null for one of the catalogue.")
    sha256: str | None = Field(
        None,
        description="SHA-256 of the uploaded file, which the job uses even if the name is uploaded again; null "
        "for one of the catalogue.",
    )
    vectors: int | None = Field(
        None, description="Tokens that its word takes; null where the file had yet to be downloaded."
    )
