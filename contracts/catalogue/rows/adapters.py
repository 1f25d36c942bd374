"""Rows of adapters: LoRAs, IP-Adapters, textual inversions; each is one file for models of one family."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from contracts.catalogue.rows.row import Row, WeightRow


class LoraSpec(WeightRow):
    """A LoRA: a `.safetensors` file for models of one family.

    Attributes:
        trigger: words in the prompt that activate it; shown to people.
        models: ids of the models whose layers it fits; empty: all of its family.
    """

    trigger: str = ""
    models: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _family_takes_loras(self) -> Self:
        if not self.family_spec.denoiser_layers:
            raise ValueError(f"family {self.family} takes no LoRAs")
        return self

    def suits(self, model: Row) -> bool:
        """Return whether it works with the model of this row."""
        takes_any = bool(model.family_spec.denoiser_layers)
        return self.family == model.family and takes_any and (not self.models or model.id in self.models)

    def misfit(self, model: Row) -> str | None:
        """Return why it does not work with the model of this row; None if it does."""
        if self.suits(model):
            return None
        if self.family == model.family and not model.family_spec.denoiser_layers:
            return f"{self.id} is not made for {model.id}, whose layers no adapter fits; remove it"
        made_for = ", ".join(self.models) if self.family == model.family else f"{self.family} models"
        return f"{self.id} works with {made_for}, and {model.id} is of family {model.family}"


class IpAdapterSpec(LoraSpec):
    """An IP-Adapter: a `.safetensors` file for models of one family.

    Attributes:
        image_encoder: folder with the image encoder that it was trained with, in transformers' layout: CLIP, or
            SigLIP for Redux.
    """

    image_encoder: str


class TextualInversionSpec(LoraSpec):
    """A textual inversion: a `.safetensors` file of vectors that a word in a prompt stands for.

    Attributes:
        trigger: another word than its id; without spaces.
    """

    trigger: str = Field("", pattern=r"^(<?[^\W_][\w.-]{0,63}>?)?$")

    @property
    def words(self) -> tuple[str, ...]:
        """Words in a prompt that stand for it."""
        return tuple(dict.fromkeys(word for word in (self.id, self.trigger.strip("<>")) if word))

    @model_validator(mode="after")
    def _family_takes_loras(self) -> Self:
        if not self.family_spec.inversion_encoders:
            raise ValueError(f"family {self.family} takes no textual inversions")
        return self
