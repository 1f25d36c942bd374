"""Rows of VAEs that take the place of a model's own. Opens no file: `contracts.weights.vae_files` reads them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from contracts.catalogue.rows.row import WeightRow


class LatentSpace(BaseModel):
    """The latents that a VAE reads and makes, by its configuration.

    Attributes:
        scaling_factor, shift_factor: what a denoiser is given is `(latents - shift_factor) * scaling_factor`.
        stride: pixels of an image along each side for one position of the latents.
    """

    model_config = ConfigDict(frozen=True)

    channels: int
    scaling_factor: float
    shift_factor: float
    stride: int
    is_tiny: bool = False

    def difference(self, own: LatentSpace) -> str | None:
        """Return how these latents differ from those of a model's own VAE; None: they do not.

        A tiny VAE (TAESD) reads what the denoiser is given as it is.
        """
        factors = () if self.is_tiny else ("scaling_factor", "shift_factor")
        for name in ("channels", "stride", *factors):
            if getattr(self, name) != getattr(own, name):
                return f"its {name} is {getattr(self, name):g}, and the model's is {getattr(own, name):g}"
        if self.is_tiny and (self.scaling_factor, self.shift_factor) != (1.0, 0.0):
            return f"its scaling_factor is {self.scaling_factor:g}, and must be 1 for an AutoencoderTiny"
        return None


class VaeSpec(WeightRow):
    """A VAE for models of one family.

    Attributes:
        source: a folder or repository with `config.json` and weights, or a `.safetensors` file, with a
            `config.json` beside it or alone.
        latents: what its configuration says, where that is on this machine; None: not known, as of a file alone,
            which is read as the model's own.
    """

    latents: LatentSpace | None = None

    def misfit(self, model: str, family: str, own: LatentSpace | None) -> str | None:
        """Return why it cannot be used with a model of this id, family and own latents; None: it can."""
        if self.family != family:
            return f"{self.id} works with {self.family} models, and {model} is of family {family}"
        difference = None if self.latents is None or own is None else self.latents.difference(own)
        return None if difference is None else f"{self.id} does not suit {model}: {difference}"
