"""Rows of networks that run by themselves, without prompt and family: upscalers, erasers, preprocessors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from contracts.catalogue.rows.preprocessors import PREPROCESSORS, Preprocessor, PreprocessorOption
from contracts.catalogue.rows.row import SourceRow

#: Ways of `hires` to enlarge an image, or its latents, that need no network.
LANCZOS, LATENT = PLAIN_UPSCALERS = ("lanczos", "latent")

#: What a model makes of an image.
MapKind = Literal["depth", "segmentation", "pose"]
#: Confidence of a model from which it draws a joint.
CONFIDENCE = PreprocessorOption("confidence", 0, 1, 0.3, "Confidence of the model from which a joint is drawn.")
_TITLES: Mapping[MapKind, str] = {
    "depth": "Depth map: brighter where things are nearer",
    "segmentation": "Segmentation: each of ADE20K's classes in its color",
    "pose": "Pose of one person, drawn as OpenPose does",
}
_OPTIONS: Mapping[MapKind, tuple[PreprocessorOption, ...]] = {"pose": (CONFIDENCE,)}


class NetworkSpec(SourceRow):
    """A network that runs by itself."""


class FileNetworkSpec(NetworkSpec):
    """A network in one `.safetensors` file; which architecture it is, its tensors say."""

    @model_validator(mode="after")
    def _is_one_file(self) -> Self:
        if not self.source.endswith(".safetensors"):
            raise ValueError(f"source must be a .safetensors file, here or on a hub, got {self.source!r}")
        return self


class UpscalerSpec(FileNetworkSpec):
    """An upscaler: ESRGAN and its kin, or Compact.

    Attributes:
        scale: how many times as wide and high as its input its output is; compared with the file.
    """

    scale: Annotated[int, Field(ge=1, le=8)]

    @field_validator("id")
    @classmethod
    def _is_no_other_way(cls, id: str) -> str:
        if id in PLAIN_UPSCALERS:
            raise ValueError(f"must differ from {', '.join(PLAIN_UPSCALERS)}, which `hires` has without a network")
        return id


class EraserSpec(FileNetworkSpec):
    """An eraser: LaMa."""


class PreprocessorSpec(NetworkSpec):
    """A preprocessor that is a model in transformers' layout: a folder, or a repository on a hub.

    Attributes:
        kind: what it makes of an image; `depth`: a map that is brighter where things are nearer; `segmentation`:
            each of ADE20K's classes in its color; `pose`: a person's limbs and joints, as OpenPose draws them.
    """

    kind: MapKind

    @property
    def preprocessor(self) -> Preprocessor:
        """What it makes, and its options."""
        return Preprocessor(self.id, self.title or _TITLES[self.kind], _OPTIONS.get(self.kind, ()))

    @model_validator(mode="after")
    def _is_a_folder_with_a_name_of_its_own(self) -> Self:
        if self.source.endswith(".safetensors"):
            raise ValueError(
                f"source must be a folder or repository with config.json, preprocessor_config.json and weights, "
                f"got the file {self.source!r}"
            )
        if self.id in PREPROCESSORS:
            raise ValueError(f"{self.id} is the name of a preprocessor that needs no model; choose another id")
        return self
