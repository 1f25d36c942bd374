"""The kernel options that an operator can set. Data, without torch; `kernels.py` applies them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Attention = Literal["auto", "cudnn", "flash", "efficient", "math"]
ChannelsLast = Literal["auto", "on", "off"]
Compile = Literal["off", "blocks", "graphs", "whole_graphs"]


@dataclass(frozen=True)
class KernelOptions:
    """Options of a worker's kernels; each may change the last bits of an image.

    Attributes:
        attention: the attention kernel to try first; `auto` keeps torch's order, `math` allows no other.
        channels_last: whether weights of convolutions are stored with the channels last; `auto` is `off`: a VAE
            takes 17 % more memory with it, and no measurement has shown a gain yet (docs/gpu.md).
        compile: `blocks` compiles the denoiser's repeated blocks, `graphs` also replays them as CUDA graphs,
            `whole_graphs` compiles and replays the whole denoiser of models that need few steps, else as `graphs`.
        compile_backend: the backend of torch.compile.
        compile_failure: why `compile` was turned off at start; empty where it was not.
        lora_slots: sets of LoRAs that a compiled denoiser has room for at once; 0: LoRAs run uncompiled.
        slot_rank: the most that the ranks of the LoRAs of one image may add up to there.
    """

    attention: Attention = "auto"
    channels_last: ChannelsLast = "auto"
    compile: Compile = "off"
    compile_backend: str = "inductor"
    compile_failure: str = ""
    lora_slots: int = 4
    slot_rank: int = 32

    @property
    def replays(self) -> bool:
        """Whether CUDA graphs are recorded and replayed."""
        return self.compile in ("graphs", "whole_graphs")

    @property
    def slot_ranks(self) -> int:
        """Rank of all slots together, with the one of images without LoRAs; 0 where none are kept."""
        return (self.lora_slots + 1) * self.slot_rank if self.compile != "off" and self.lora_slots else 0
