"""A T2I-Adapter of a UNet in training: it sees the control image once, whatever the noise."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import T2IAdapter
from torch import Tensor, nn

from models.training.trainees.prompts import without_prompts
from worker.training.examples import Example
from worker.training.trainees.trainee import Trainee


class TrainedT2IAdapter(Trainee):
    """A T2I-Adapter with a feature for each block of the UNet on the way down.

    Attributes:
        net: of diffusers' class.
    """

    def __init__(self, unet: Any) -> None:
        """It begins as diffusers makes one."""
        unet.requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self.net: Any = T2IAdapter(
                in_channels=3, channels=list(unet.config.block_out_channels), num_res_blocks=1, downscale_factor=8,
                adapter_type="full_adapter",
            )  # fmt: skip
        self.parameters: Mapping[str, nn.Parameter] = dict(self.net.named_parameters())

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """See `Trainee`: nothing is put into the UNet."""
        yield

    def read(self, rows: Sequence[Example]) -> Sequence[Example]:
        """See `Trainee`."""
        return without_prompts(rows)

    def steered(self, denoiser: Any, rows: Sequence[Example]) -> Callable[..., Any]:
        """See `Trainee`: its features are added to what the UNet's blocks give."""
        features = self.net(torch.cat([row.control for row in rows if row.control is not None]))

        def call(latents: Tensor, timesteps: Tensor, words: Tensor, **more: Any) -> Any:
            added = [feature.clone() for feature in features]
            return denoiser(latents, timesteps, words, down_intrablock_additional_residuals=added, **more)

        return call
