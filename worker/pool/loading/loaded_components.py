"""The components of a checkpoint that is loaded, for one whose files did not tell them. Knows no plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from contracts.catalogue.rows.models import ModelSpec
from contracts.memory.sizes.component import ModelComponents, role_of, size_component
from contracts.weights.counts.parameter_counts import LinearWeights, ParameterCount
from worker.checkpoints.quantized.packed_weights import describe, is_packed


def components_of(pipeline: Any, spec: ModelSpec, dtype: torch.dtype) -> ModelComponents:
    """Return the components of a pipeline that computes in this dtype."""
    components = []
    parts: dict[str, Any] = pipeline.components
    for name, part in parts.items():
        if not isinstance(part, torch.nn.Module):
            continue
        config = _config(part)
        count = _count(_own_tensors(part))
        value_bytes = _value_bytes(part) if name == "vae" else dtype.itemsize
        components.append(size_component(name, role_of(name, config), count, value_bytes, config))
    return ModelComponents(spec.id, tuple(components), dtype.itemsize, spec.family_spec.t5_optional)


def _own_tensors(part: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and stored buffers by name, without what layers write beside them, such as bitsandbytes'."""
    own = {name for name, _ in (*part.named_parameters(remove_duplicate=False), *part.named_buffers())}
    return {name: tensor for name, tensor in part.state_dict(keep_vars=True).items() if name in own}


def _count(tensors: Mapping[str, torch.Tensor]) -> ParameterCount:
    """Count a component; a tensor that two layers share, such as T5's table of tokens, counts once."""
    first = {id(tensor): key for key, tensor in reversed(list(tensors.items()))}
    tensors = {key: tensor for key, tensor in tensors.items() if first[id(tensor)] == key}
    packed = {key: describe(tensor) for key, tensor in tensors.items() if is_packed(tensor)}
    plain = {key: tensor.shape for key, tensor in tensors.items() if key not in packed}
    counts = ((key, shape.numel()) for key, shape in plain.items())
    return ParameterCount.of(counts, list(packed.items()), LinearWeights.of(plain))


def _value_bytes(vae: Any) -> int:
    return int(vae.dtype.itemsize)


def _config(part: Any) -> dict[str, Any]:
    """A component's configuration, of diffusers' or of transformers' kind."""
    config = part.config
    return config.to_dict() if hasattr(config, "to_dict") else dict(config)
