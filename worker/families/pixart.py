"""PixArt-Σ: a transformer that attends to T5's sequence. Text to image only.

Arguments are those of diffusers' `PixArtSigmaPipeline` (`diffusers.pipelines.pixart_alpha`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.families.pixart_parts import pixart_family, pixart_misfit


def _misfit(components: Mapping[str, Any]) -> str | None:
    return pixart_misfit(components, is_conditioned=False)


FAMILY = pixart_family(id="pixart", pipeline="PixArtSigmaPipeline", misfit=_misfit)
