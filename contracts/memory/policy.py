"""What a worker's operator allows plans to do, and what its machine requires of them.

Knows no plans: the settings read it, which every program loads that lists or checks them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

T5Policy = Literal["auto", "gpu", "cpu", "on_demand", "off"]


@dataclass(frozen=True)
class Policy:
    """Choices of a worker's operator, and differences between machines, that plans follow.

    Attributes:
        t5: `auto`: as the plan has it; `gpu`: on the device throughout; `on_demand`: copied to the device for each
            new prompt, whole or group by group; `cpu`: computed on the CPU; `off`: skipped by families that work
            without it, `auto` for the others.
        allow_fp8: whether the denoiser's weights may be stored in 8 bits, which changes images.
        allow_drop_t5: whether T5 may be skipped where nothing else fits, which changes images.
        host_bytes: maximum of weights in host memory; None: no limit.
        cudnn: whether the device is a CUDA card: cuDNN's workspace counts beside the tensors of a convolution.
        cpu_value_bytes: of one value of a T5 that is computed on the CPU, unless the model's dtype is wider: 4,
            or 2 where the processor multiplies bfloat16.
        slot_ranks: rank of all slots together that a compiled denoiser has for LoRAs; 0: it has none.
        graphs: whether CUDA graphs of the denoiser are replayed, which keep its activations.
    """

    t5: T5Policy = "auto"
    allow_fp8: bool = False
    allow_drop_t5: bool = False
    host_bytes: int | None = None
    cudnn: bool = False
    cpu_value_bytes: int = 4
    slot_ranks: int = 0
    graphs: bool = False
