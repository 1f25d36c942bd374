"""Rows of networks that run by themselves, without prompt, scheduler and family: upscalers and erasers."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from contracts.catalogue.rows import SourceRow


class NetworkSpec(SourceRow):
    """A network in one `.safetensors` file; which architecture it is, its tensors say."""

    @model_validator(mode="after")
    def _is_one_file(self) -> Self:
        if not self.source.endswith(".safetensors"):
            raise ValueError(f"source must be a .safetensors file, here or on a hub, got {self.source!r}")
        return self


class UpscalerSpec(NetworkSpec):
    """An upscaler: ESRGAN and its kin, or Compact.

    Attributes:
        scale: how many times as wide and high as its input its output is; compared with the file.
    """

    scale: Annotated[int, Field(ge=1, le=8)]


class EraserSpec(NetworkSpec):
    """An eraser: LaMa."""
