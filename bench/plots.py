"""Draws what the last runs of the benches have left: `python -m bench.plots`. Measures nothing.

Colours are those of Okabe and Ito, which colour-blind people tell apart; hatches and markers say the same again.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

from bench.table import kept

#: How the names of rivals begin -> colour, hatch, marker.
_STYLES = {
    "LitServe": ("#E69F00", "..", "D"),
    "Darkroom, batches": ("#0072B2", "xx", "^"),
    "Darkroom, one by one": ("#56B4E9", "//", "s"),
    "bare loop, batches": ("#666666", "||", "v"),
    "bare loop": ("#BBBBBB", "", "o"),
}
_FOLDER = Path(__file__).parent


def main() -> None:
    """Draw each picture whose figures are there."""
    mpl.use("Agg")
    for name, draw in (("overhead", draw_rates), ("latency", draw_latencies)):
        figures = kept(name)
        if figures is None:
            print(f"{name}: not measured yet")
            continue
        path = _FOLDER / f"{name}.png"
        draw(figures)
        plt.tight_layout()
        plt.savefig(path, dpi=120)
        plt.close()
        print(path.relative_to(_FOLDER.parent))


def draw_rates(figures: dict[str, dict[str, list[float]]]) -> None:
    """Bars: each mix, each rival, as a part of the bare loop's rate in the same round; lines show the range."""
    _, axes = plt.subplots(figsize=(8, 4))
    rivals = list(next(iter(figures.values())))
    width = 0.8 / len(rivals)
    for number, rival in enumerate(rivals):
        ratios = [
            [rate / bare for rate, bare in zip(of[rival], of["bare loop"], strict=True)] for of in figures.values()
        ]
        middles = [statistics.median(part) for part in ratios]
        colour, hatch, _ = _style(rival)
        below = [middle - min(part) for middle, part in zip(middles, ratios, strict=True)]
        above = [max(part) - middle for middle, part in zip(middles, ratios, strict=True)]
        axes.bar(
            [place + number * width for place in range(len(figures))],
            middles,
            width,
            yerr=[below, above],
            capsize=3,
            label=rival,
            color=colour,
            hatch=hatch,
            edgecolor="black",
        )
    axes.set_xticks(
        [place + 0.4 - width / 2 for place in range(len(figures))], [f"mixed {mix}" for mix in figures]
    )
    axes.set_ylabel("images a second ÷ bare loop")
    axes.axhline(1, color="black", linewidth=0.8)
    axes.legend(fontsize="small", ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def draw_latencies(figures: dict[str, dict[str, list[float]]]) -> None:
    """Lines: 50th and (dashed) 95th percentile at each rate of arrival."""
    _, axes = plt.subplots(figsize=(8, 4))
    for rival, points in figures.items():
        loads = [float(load) for load in points]
        colour, _, marker = _style(rival)
        style: dict[str, Any] = {"color": colour, "marker": marker}
        axes.plot(loads, [p50 for p50, _ in points.values()], label=f"{rival}, p50", **style)
        axes.plot(loads, [p95 for _, p95 in points.values()], linestyle="--", label=f"{rival}, p95", **style)
    axes.set_xlabel("arrivals ÷ what the bare loop makes")
    axes.set_ylabel("seconds to the image")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small")


def _style(rival: str) -> tuple[str, str, str]:
    return next(style for name, style in _STYLES.items() if rival.startswith(name))


if __name__ == "__main__":
    main()
