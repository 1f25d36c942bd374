"""Rows of ControlNets, and of T2I-Adapters, which requests use in the same way."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from contracts.catalogue.rows.preprocessors import PREPROCESSORS
from contracts.catalogue.rows.row import Row, WeightRow

#: Class of all T2I-Adapters.
T2I_ADAPTER = "T2IAdapter"


class ControlNetSpec(WeightRow):
    """A ControlNet or a T2I-Adapter.

    Attributes:
        kind: `hint` takes a control image; `inpaint` takes the job's image and mask; `t2i_adapter` is a
            T2I-Adapter, which takes a control image.
        preprocessors: names of the preprocessors that make its kind of control image, for lists.
        reads_masks: whether it can be used in a job with a mask.
        modes: kinds of control of a union, for lists, in the order of their numbers; empty for others.
        models: ids of the models whose layers it fits; empty: all of its family.
    """

    kind: Literal["hint", "inpaint", "t2i_adapter"] = "hint"
    preprocessors: tuple[str, ...] = ()
    reads_masks: bool = True
    modes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    @property
    def is_t2i_adapter(self) -> bool:
        """Whether it is a T2I-Adapter."""
        return self.kind == "t2i_adapter"

    @property
    def class_name(self) -> str:
        """The class that its `config.json` must name."""
        if self.is_t2i_adapter:
            return T2I_ADAPTER
        return self.family_spec.union if self.modes else self.family_spec.controlnet

    @property
    def acts_with_unions_only(self) -> bool:
        """Whether it is a union of a class of its own, which diffusers runs beside others of that class alone."""
        return bool(self.modes) and self.class_name != self.family_spec.controlnet

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
        if self.is_t2i_adapter and self.family_spec.t2i_multiple is None:
            raise ValueError(f"family {self.family} has no T2I-Adapters")
        if self.is_t2i_adapter and self.modes:
            raise ValueError("a T2I-Adapter has one kind of control: remove `modes`")
        if self.modes and not self.family_spec.union:
            raise ValueError(
                f"unions of several kinds of control (`modes`) are not supported in family {self.family}"
            )
        unknown = [name for name in self.preprocessors if name not in PREPROCESSORS]
        if unknown:
            raise ValueError(f"unknown preprocessor {unknown[0]!r}; known: {', '.join(PREPROCESSORS)}")
        return self
