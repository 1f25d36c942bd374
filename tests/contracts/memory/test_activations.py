"""What a call keeps beside the work of its components: pictures, latents, prompts."""

from __future__ import annotations

import pytest

from contracts.memory.activations import Canvas, Held, Work, most_values

PIXELS = 64 * 32


@pytest.mark.parametrize(
    ("canvas", "starts", "controls"),
    [
        (Canvas(64, 32), 0, 0),
        (Canvas(64, 32, started=True), 3, 0),
        (Canvas(64, 32, started=True, masked=True), 7, 0),
        (Canvas(64, 32, controls=2), 0, 12),
        (Canvas(64, 32, guided=False, controls=2), 0, 6),
    ],
)
def test_pictures_have_three_channels_a_mask_one_and_controls_come_once_a_pass(
    canvas: Canvas, starts: int, controls: int
) -> None:
    assert (canvas.start_values, canvas.control_values) == (starts * PIXELS, controls * PIXELS)


@pytest.mark.parametrize(
    ("canvas", "latents", "prompts"),
    [
        (Canvas(64, 32, guided=False, text_tokens=10), 5, 3),
        (Canvas(64, 32, text_tokens=10), 7, 6),
        (Canvas(64, 32, text_tokens=10, started=True), 9, 6),
        (Canvas(64, 32, text_tokens=10, started=True, masked=True), 11, 6),
        (Canvas(64, 32, text_tokens=10, controls=1), 9, 6),
    ],
)
def test_latents_and_prompts_are_kept_several_times(canvas: Canvas, latents: int, prompts: int) -> None:
    held = Held(latents=Work(pixel=0.5), prompt=Work(token=4.0))
    assert held.values(canvas, 1) == latents * PIXELS / 2 + prompts * 40
    assert held.values(canvas, 3) == 3 * held.values(canvas, 1)


def test_the_worst_moment_counts_and_weights_are_not_in_it() -> None:
    moments = (Work(pixel=2.0, layers=10**9), Work(token=100.0, fixed=5.0), Work(token_squared=1.0))
    assert most_values(moments, Canvas(64, 32, text_tokens=1), 3) == 3 * 2 * PIXELS
    assert most_values(moments, Canvas(64, 32, text_tokens=50), 3) == 3 * 5005
    assert most_values(moments, Canvas(64, 32, text_tokens=400), 2) == 400**2
    assert most_values((), Canvas(64, 32), 3) == 0
