"""Rows of ControlNets."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from contracts.catalogue.preprocessors import PREPROCESSORS
from contracts.catalogue.rows import Row, WeightRow


class ControlNetSpec(WeightRow):
    """A ControlNet.

    Attributes:
        kind: `hint` takes a control image; `inpaint` takes the job's image and mask.
        preprocessors: names of the preprocessors that make its kind of control image, for lists.
        reads_masks: whether it can be used in a job with a mask.
        modes: kinds of control of a union, for lists, in the order of their numbers; empty for others.
        models: ids of the models whose layers it fits; empty: all of its family.
    """

    kind: Literal["hint", "inpaint"] = "hint"
    preprocessors: tuple[str, ...] = ()
    reads_masks: bool = True
    modes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    def misfit(self, model: Row) -> str | None:
        """Return why it does not work with the model of this row; None if it does."""
        if self.family == model.family and (not self.models or model.id in self.models):
            return None
        if self.family == model.family:
            return f"{self.id} works with {', '.join(self.models)}, and not with {model.id}"
        return f"{self.id} works with {self.family} models, and {model.id} is of family {model.family}"

    @model_validator(mode="after")
    def _family_has_controlnets_and_preprocessors_exist(self) -> Self:
        if not self.family_spec.controlnet:
            raise ValueError(f"family {self.family} has no ControlNets")
        if self.modes and not self.family_spec.control_modes:
            raise ValueError(
                f"unions of several kinds of control (`modes`) are not supported in family {self.family}"
            )
        unknown = [name for name in self.preprocessors if name not in PREPROCESSORS]
        if unknown:
            raise ValueError(f"unknown preprocessor {unknown[0]!r}; known: {', '.join(PREPROCESSORS)}")
        return self
