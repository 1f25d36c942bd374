"""Weights that are made of plain tensors: found for moving, and made again once they are on another device."""

from __future__ import annotations

from typing import Any

import torch
from torch.testing._internal.two_tensor import TwoTensor

from worker.offload.stored_tensors import WrappedWeights, own_tensors, stored_tensors


def _layer() -> tuple[Any, torch.Tensor, torch.Tensor]:
    layer: Any = torch.nn.Linear(2, 3)
    made: Any = TwoTensor(torch.ones(3, 2), torch.zeros(3, 2))  # type: ignore[no-untyped-call]
    layer.weight = torch.nn.Parameter(made, requires_grad=False)
    return layer, layer.weight.a, layer.weight.b


def test_a_weight_counts_as_the_plain_tensors_inside_it_each_once() -> None:
    layer, one, two = _layer()
    shared = torch.nn.Sequential(layer, layer)
    assert [id(tensor) for tensor in own_tensors(layer)] == [id(one), id(two), id(layer.bias)]
    assert len(stored_tensors((*shared.parameters(), layer.weight))) == 3
    assert own_tensors(shared) == []


def test_a_weight_is_made_again_around_the_same_tensors_when_they_are_on_another_device() -> None:
    layer, one, two = _layer()
    weights, before = WrappedWeights(torch.nn.Sequential(layer)), layer.weight
    weights.renew([one, two, layer.bias])
    assert layer.weight is before
    for name in ("a", "b"):
        setattr(before, name, torch.empty(3, 2, device="meta"))
    weights.renew([one])
    assert layer.weight is not before
    assert layer.weight.device.type == "meta"
    assert layer.weight.a is before.a
    assert layer.weight.b is before.b
    assert isinstance(layer.weight, torch.nn.Parameter)
    assert not layer.weight.requires_grad
