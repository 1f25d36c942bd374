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

_COLOURS = ("#999999", "#56B4E9", "#0072B2", "#E69F00")
_HATCHES = ("", "//", "xx", "..")
_MARKERS = ("o", "s", "^", "D")
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
        below = [middle - min(part) for middle, part in zip(middles, ratios, strict=True)]
        above = [max(part) - middle for middle, part in zip(middles, ratios, strict=True)]
        axes.bar(
            [place + number * width for place in range(len(figures))],
            middles,
            width,
            yerr=[below, above],
            capsize=3,
            label=rival,
            color=_COLOURS[number],
            hatch=_HATCHES[number],
            edgecolor="black",
        )
    axes.set_xticks(
        [place + 0.4 - width / 2 for place in range(len(figures))], [f"mixed {mix}" for mix in figures]
    )
    axes.set_ylabel("images a second ÷ bare loop")
    axes.axhline(1, color="black", linewidth=0.8)
    axes.legend(fontsize="small")


def draw_latencies(figures: dict[str, dict[str, list[float]]]) -> None:
    """Lines: 50th and (dashed) 95th percentile at each rate of arrival."""
    _, axes = plt.subplots(figsize=(8, 4))
    for number, (rival, points) in enumerate(figures.items()):
        loads = [float(load) for load in points]
        style: dict[str, Any] = {"color": _COLOURS[number], "marker": _MARKERS[number]}
        axes.plot(loads, [p50 for p50, _ in points.values()], label=f"{rival}, p50", **style)
        axes.plot(loads, [p95 for _, p95 in points.values()], linestyle="--", label=f"{rival}, p95", **style)
    axes.set_xlabel("arrivals ÷ what the bare loop makes")
    axes.set_ylabel("seconds to the image")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small")


if __name__ == "__main__":
    main()
