"""Why a model's denoiser is not replayed as CUDA graphs, or not as a whole. Knows no kernels."""

from __future__ import annotations

from contracts.catalogue.rows.models import ModelSpec
from contracts.memory.plan import Placement
from worker.offload.placement import ComponentPlacement

#: Default steps up to which a denoiser is replayed whole: distilled models, whose small kernels wait for the host.
_FEW_STEPS = 8
#: Times that a denoiser may come to the device and still be replayed.
_MAX_ARRIVALS = 4


def why_not_whole(spec: ModelSpec) -> str:
    """Why a model's denoiser is not compiled as a whole; empty where it is."""
    steps = int(str(spec.default("num_inference_steps") or 0))
    return f"{steps} steps by default, of at most {_FEW_STEPS}" if steps > _FEW_STEPS else ""


def why_no_graphs(placement: ComponentPlacement, denoiser: str, graph_bytes: int | None) -> str:
    """Why a call of the denoiser must not be replayed now; empty where it may be.

    Graphs name addresses of weights: where these have come again, others are recorded beside the old ones.

    Args:
        graph_bytes: what graphs keep by the plan; None: it has no room for them.
    """
    if placement.placement_of(denoiser) is Placement.ON_DEMAND:
        return "denoiser on demand"
    if (arrivals := placement.arrivals(denoiser)) > _MAX_ARRIVALS:
        return f"the denoiser came to the device {arrivals} times"
    return "no room in the plan" if graph_bytes is None else ""
