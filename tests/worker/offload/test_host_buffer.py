"""Host memory of weights: as large as they are, and the same weights."""

from __future__ import annotations

import gc

import pytest
import torch

from contracts.weights.counts.architectures import read_architectures
from counting.component_calls import build
from worker.offload.host_buffer import HostBuffer, layout

CPU = torch.device("cpu")


def test_copies_have_the_values_dtypes_and_strides_of_their_originals() -> None:
    originals = [
        torch.randn(3, 5),
        torch.randn(7, 3, 3, 3, dtype=torch.bfloat16).to(memory_format=torch.channels_last),
        torch.randn(4, 6).t(),
        torch.arange(3),
        torch.tensor(2.0),
        torch.empty(0),
        torch.randn(4, 4).to(torch.float8_e4m3fn),
    ]
    buffer = HostBuffer(originals, CPU)
    for copy, original in zip(buffer.tensors, originals, strict=True):
        assert (copy.dtype, copy.shape, copy.stride()) == (original.dtype, original.shape, original.stride())
        assert torch.equal(copy.float(), original.float())
        assert original.numel() == 0 or copy.data_ptr() != original.data_ptr()
        assert copy.data_ptr() % 64 == 0
    (storage,) = {copy.untyped_storage().data_ptr() for copy in buffer.tensors if copy.numel()}
    assert storage
    assert not buffer.is_pinned


def test_a_published_models_components_take_their_own_size_where_powers_of_two_would_take_half_again() -> None:
    flux = next(one for one in read_architectures() if one.id == "flux.1-dev")
    exact = buffers = powers_of_two = 0
    for config in flux.configs.values():
        tensors = list(build(config, torch.bfloat16).parameters())
        exact += sum(tensor.nbytes for tensor in tensors)
        buffers += layout(tensors)[1]
        powers_of_two += sum(1 << (tensor.nbytes - 1).bit_length() for tensor in tensors)
    assert exact <= buffers < 1.001 * exact
    assert powers_of_two > 1.4 * exact


def test_memory_is_page_locked_before_it_is_filled_and_the_host_waits_once_for_all_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[str] = []

    class Stream:
        def synchronize(self) -> None:
            steps.append("wait")

    def register(memory: torch.Tensor, device: torch.device) -> bool:
        steps.append("lock a filled buffer" if memory.any() else "lock")
        return True

    monkeypatch.setattr("worker.offload.host_buffer._register", register)
    monkeypatch.setattr("worker.offload.host_buffer._unregister", lambda *_: steps.append("unlock"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream())
    originals = [torch.ones(100), torch.ones(7)]
    buffer = HostBuffer(originals, torch.device("cuda:0"))
    assert buffer.is_pinned
    assert all(torch.equal(copy, original) for copy, original in zip(buffer.tensors, originals, strict=True))
    del buffer
    gc.collect()
    assert steps == ["lock", "wait", "unlock"]
