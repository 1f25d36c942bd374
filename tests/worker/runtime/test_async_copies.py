"""Small tensors come to the device without a wait, and diffusers' modules stay as they are."""

from __future__ import annotations

import torch
from diffusers import FluxControlNetPipeline
from diffusers.pipelines.flux import pipeline_flux_controlnet

from tests.support.counting_device import CountingDevice
from worker.runtime.async_copies import copy_to, rebound, with_asynchronous_tensors


def test_a_copy_to_the_device_does_not_wait() -> None:
    values = torch.arange(6.0).view(2, 3)
    with CountingDevice() as device:
        copy = copy_to(values, "cuda:0")
        assert copy.device.type == "cuda"
        assert not device.waits
        assert copy.tolist() == values.tolist()
    assert copy_to(values, "cpu") is values


def test_a_function_with_another_meaning_of_a_name_keeps_its_signature_and_changes_no_other() -> None:
    def shape(tensor: torch.Tensor, *, more: int = 1) -> list[int]:
        """Its documentation."""
        return [*torch.zeros_like(tensor).shape, more]

    class _Ones:
        zeros_like = torch.ones_like

    other = rebound(shape, torch=_Ones)
    assert other(torch.zeros(2)) == shape(torch.zeros(2)) == [2, 1]
    assert (other.__doc__, other.__kwdefaults__) == ("Its documentation.", {"more": 1})
    assert shape.__globals__["torch"] is torch


def test_a_pipeline_class_with_asynchronous_tensors_is_made_once_and_leaves_diffusers_alone() -> None:
    call = FluxControlNetPipeline.__call__
    made = with_asynchronous_tensors(FluxControlNetPipeline)
    assert made is with_asynchronous_tensors(FluxControlNetPipeline)
    assert issubclass(made, FluxControlNetPipeline)
    assert made.__call__ is not call
    assert FluxControlNetPipeline.__call__ is call
    assert pipeline_flux_controlnet.torch is torch
