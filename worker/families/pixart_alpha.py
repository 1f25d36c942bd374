"""PixArt-α: PixArt-Σ's transformer, told the image's size and aspect where it was trained for 1024 pixels.

Arguments are those of diffusers' `PixArtAlphaPipeline` (`diffusers.pipelines.pixart_alpha`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from typing import Any

from worker.families.pixart_parts import CONDITIONED_SIDE, pixart_family, pixart_misfit


def _misfit(components: Mapping[str, Any]) -> str | None:
    is_conditioned = components["transformer"].config.sample_size == CONDITIONED_SIDE
    return pixart_misfit(components, is_conditioned=is_conditioned)


def _patch(pipeline: Any) -> None:
    """Give a scheduler's step a second result, the predicted image, which at the last step equals the first.

    diffusers' pipeline (0.42) reads it if there is only one step, and not all schedulers return one;
    `test_one_step_is_made_with_every_kind_of_scheduler` shows that all work.
    """
    step = pipeline.scheduler.step

    @wraps(step)
    def with_two(*args: Any, **given: Any) -> Any:
        results = step(*args, **given)
        return (*results, *results) if isinstance(results, tuple) and len(results) == 1 else results

    pipeline.scheduler.step = with_two


FAMILY = pixart_family(id="pixart-alpha", pipeline="PixArtAlphaPipeline", misfit=_misfit, patch=_patch)
