"""What a call keeps beside its components' activations: input images, latents, prompts."""

from __future__ import annotations

import pytest

from contracts.memory.activations import ActivationCost, Retained, WorkloadShape, peak_values

PIXELS = 64 * 32


@pytest.mark.parametrize(
    ("shape", "starts", "controls"),
    [
        (WorkloadShape(64, 32), 0, 0),
        (WorkloadShape(64, 32, started=True), 3, 0),
        (WorkloadShape(64, 32, started=True, masked=True), 7, 0),
        (WorkloadShape(64, 32, controls=2), 0, 12),
        (WorkloadShape(64, 32, guided=False, controls=2), 0, 6),
    ],
)
def test_images_have_three_channels_a_mask_one_and_control_images_come_once_a_pass(
    shape: WorkloadShape, starts: int, controls: int
) -> None:
    assert (shape.start_values, shape.control_values) == (starts * PIXELS, controls * PIXELS)


@pytest.mark.parametrize(
    ("shape", "latents", "prompts"),
    [
        (WorkloadShape(64, 32, guided=False, text_tokens=10), 5, 3),
        (WorkloadShape(64, 32, text_tokens=10), 7, 6),
        (WorkloadShape(64, 32, text_tokens=10, started=True), 9, 6),
        (WorkloadShape(64, 32, text_tokens=10, started=True, masked=True), 11, 6),
        (WorkloadShape(64, 32, text_tokens=10, controls=1), 9, 6),
    ],
)
def test_several_copies_of_latents_and_prompts_are_kept(shape: WorkloadShape, latents: int, prompts: int) -> None:
    retained = Retained(latents=ActivationCost(pixel=0.5), prompt=ActivationCost(token=4.0))
    assert retained.values(shape, 1) == latents * PIXELS / 2 + prompts * 40
    assert retained.values(shape, 3) == 3 * retained.values(shape, 1)


def test_the_largest_cost_counts_without_weights() -> None:
    costs = (
        ActivationCost(pixel=2.0, layers=10**9),
        ActivationCost(token=100.0, fixed=5.0),
        ActivationCost(token_squared=1.0),
    )
    assert peak_values(costs, WorkloadShape(64, 32, text_tokens=1), 3) == 3 * 2 * PIXELS
    assert peak_values(costs, WorkloadShape(64, 32, text_tokens=50), 3) == 3 * 5005
    assert peak_values(costs, WorkloadShape(64, 32, text_tokens=400), 2) == 400**2
    assert peak_values((), WorkloadShape(64, 32), 3) == 0


def test_pairs_of_tokens_count_once_a_call_or_once_for_each_image() -> None:
    shape = WorkloadShape(64, 32, text_tokens=10)
    assert peak_values([ActivationCost(token_squared=2.0)], shape, 3) == 200
    assert peak_values([ActivationCost(token_pairs=2.0)], shape, 3) == 600
