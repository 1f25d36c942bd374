"""The settings of a training, whatever its images. Knows no queue."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from contracts.left_out_fields import LeftOutIfFalse, OrLeftOut
from contracts.requests.strict_model import StrictModel

#: What a training makes.
Kind = Literal["lora", "textual_inversion", "controlnet"]
#: Layers that a LoRA changes: the projections of the attentions, or also the feed-forward layers.
Targets = Literal["attention", "attention_and_feed_forward"]
#: What changes the weights: PyTorch's AdamW, or bitsandbytes', which keeps its averages in 8 bits.
OptimizerName = Literal["adamw", "adamw8bit"]
#: What a job with the second one needs of its worker.
EIGHT_BIT = "optimizer:adamw8bit"
#: How the learning rate goes after its warm-up.
Schedule = Literal["constant", "linear", "cosine"]


class TrainingSettings(StrictModel):
    """The settings of a training, whatever its images."""

    model_config = ConfigDict(extra="ignore")  # fields that another release has added

    kind: Kind = Field("lora", description="What is trained.", exclude_if=lambda kind: kind == "lora")
    vectors: OrLeftOut[int] = Field(None, description="Tokens that the word of a textual inversion takes.")
    initial_text: OrLeftOut[str] = Field(
        None,
        description="Text whose tokens are the starting point of a textual inversion; null: the mean of "
        "all tokens.",
    )
    rank: int = Field(description="Rank of each changed layer of a LoRA.")
    alpha: float = Field(description="A LoRA's strength is `alpha` / `rank`.")
    targets: Targets = Field("attention", description="Layers of the denoiser that are changed.")
    train_text_encoder: LeftOutIfFalse = Field(
        False, description="Whether a LoRA changes the CLIP text encoders too."
    )
    steps: int = Field(description="Steps of the optimizer.")
    batch_size: int = Field(1, description="Images in each step, plus as many class images.")
    learning_rate: float = Field(1e-4, description="Learning rate of AdamW after the warm-up.")
    optimizer: OptimizerName = Field(
        "adamw", description="Optimizer of the trained weights.", exclude_if=lambda name: name == "adamw"
    )
    schedule: Schedule = Field("constant", description="Schedule of the learning rate after the warm-up.")
    warmup_steps: int = Field(0, description="Steps in which the learning rate rises from 0.")
    snr_gamma: float | None = Field(None, description="Gamma of min-SNR weighting; null: none.")
    prior_loss_weight: float = Field(1.0, description="Weight of the loss on class images.")
    resolution: int = Field(
        description="Images are scaled to at most the number of pixels of a square with this side."
    )
    seed: int = Field(description="Seed of all random numbers.")

    @property
    def encodes_each_step(self) -> bool:
        """Whether the text encoders learn, so that captions are encoded in each step, as these are then."""
        return self.train_text_encoder or self.kind == "textual_inversion"
