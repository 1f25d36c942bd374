"""Which kernels the operator of a worker wants. Data, without torch; `kernels.py` acts on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Attention = Literal["auto", "cudnn", "flash", "efficient", "math"]
ChannelsLast = Literal["auto", "on", "off"]
Compile = Literal["off", "blocks", "graphs"]


@dataclass(frozen=True)
class KernelOptions:
    """Each may change images in their last bits.

    Attributes:
        attention: the kernel that is tried first; `auto` leaves the order to torch, `math` allows no other.
        channels_last: whether convolutions get their weights with the channels last; `auto`: on CUDA.
        compile: `blocks` compiles the denoiser's repeated blocks, `graphs` replays them as CUDA graphs, too.
        compile_backend: torch.compile's.
    """

    attention: Attention = "auto"
    channels_last: ChannelsLast = "auto"
    compile: Compile = "off"
    compile_backend: str = "inductor"
