"""What a server costs on top of diffusers, and what it wins: `python -m bench.overhead`.

A bare loop and Darkroom (one worker), each one by one and in batches, and LitServe with the same pipelines and
batch size, on the same orders for shapes-sdxl: mixed prompts, then mixed tasks, then mixed LoRAs. One thread
paints. Rivals follow each other in every run, and ratios are taken within one; runs are short and many, since the
speed of a machine drifts. Then latencies at rising rates. All paint with the same arithmetic (`keep_arithmetic`),
so that they paint the same bytes from the same seed.
"""

from __future__ import annotations

import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from bench.mixes import MIXES, mixed_prompts
from bench.report import keep_arithmetic, options, report
from bench.rivals import Rival, Run, bare_loops, darkroom, litserve
from bench.table import percentile, print_table, spread
from worker.runtime.warnings import silence_known_warnings

#: Rates of arrival, as parts of what the bare loop makes.
_LOADS = (0.5, 1.0, 1.5)
#: Images that arrive at each.
_ARRIVALS = 16
#: Images before the first measured one: every task and every LoRA.
_WARM_UP = 4


def main() -> None:
    """Measure, and print the tables."""
    parser = options(__doc__, runs=3)
    parser.add_argument("--jobs", type=int, default=16, help="images of one run (%(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="images that one call may make (%(default)s)")
    arguments = parser.parse_args()
    # Whoever ends this ends the servers too: some of them stand still, and would stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    keep_arithmetic()
    silence_known_warnings()
    torch.set_num_threads(1)
    with report("overhead"), ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        loops = bare_loops(arguments.batch)
        servers = [
            *stack.enter_context(darkroom(data, arguments.batch)),
            stack.enter_context(litserve(arguments.batch)),
        ]
        runs: dict[str, dict[str, list[Run]]] = {}
        for mix in MIXES:
            runs[mix] = measure([*loops, *servers], mix, arguments.jobs, arguments.runs)
            print_rates(f"mixed {mix}", runs[mix])
            print()
        bare = statistics.median(run.per_second for run in runs["prompts"]["bare loop"])
        print_latencies([loops[0], *servers], bare)
        print(f"\nmedian (range) of {arguments.runs} runs of {arguments.jobs} images;", end=" ")
        print(f"latencies: one run of {_ARRIVALS} images at each rate, mixed prompts")


def measure(rivals: Sequence[Rival], mix: str, count: int, runs: int) -> dict[str, list[Run]]:
    """Every rival's runs; rivals follow each other in each, and are warmed up before."""
    for rival in rivals:
        print(f"… {mix}: {rival.name}", file=sys.stderr)
        rival.run(MIXES[mix](_WARM_UP))
    found: dict[str, list[Run]] = {rival.name: [] for rival in rivals}
    for number in range(runs):
        orders = MIXES[mix](count, first=_WARM_UP + number * count)
        for rival in rivals:
            found[rival.name].append(rival.run(orders))
    return found


def print_rates(title: str, found: dict[str, list[Run]]) -> None:
    """A table of one mix."""
    bare = [run.per_second for run in found["bare loop"]]
    rows = []
    for name, runs in found.items():
        rates = [run.per_second for run in runs]
        ratios = [rate / base for rate, base in zip(rates, bare, strict=True)]
        rows.append([name, spread(rates), spread(ratios, 2), spread([run.cpu_seconds for run in runs], 3)])
    print_table([title, "images/s", "÷ bare loop", "CPU seconds an image"], rows)


def print_latencies(rivals: Sequence[Rival], bare: float) -> None:
    """A table of 50th and 95th percentiles; rates are parts of the bare loop's."""
    rows: list[list[object]] = []
    for part in _LOADS:
        orders = mixed_prompts(_ARRIVALS, first=int(part * 100_000))
        for rival in rivals:
            print(f"… {part:g} of the bare loop's rate: {rival.name}", file=sys.stderr)
            seconds = rival.latencies(orders, part * bare)
            figures = [percentile(seconds, 0.5), percentile(seconds, 0.95)]
            row = [f"{part:g} ({part * bare:.1f}/s)", rival.name]
            rows.append([*row, *(f"{figure:.2f}" for figure in figures)])
    print_table(["arrivals ÷ bare loop", "", "p50 s", "p95 s"], rows)


if __name__ == "__main__":
    main()
