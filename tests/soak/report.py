"""The table of a soak, and its verdict."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.soak.honest import Books, Call
from tests.soak.memory import MemorySampler

#: How many times longer than undisturbed an honest submit may take, at the 99th percentile.
FACTOR = 3.0
#: Growth of resident memory from the undisturbed phase to the end that is no leak: caches and fragmentation.
GROWTH_BYTES = 200 * 2**20
#: How many of the slowest submits are printed.
_SHOWN = 25


@dataclass
class Phase:
    """A part of the soak, from `begin` to `end` (monotonic seconds)."""

    name: str
    begin: float
    end: float


@dataclass
class Report:
    """All that was measured."""

    books: Books
    phases: Sequence[Phase]
    outages: Sequence[tuple[float, float]]
    memory: MemorySampler
    attacks: Mapping[str, int]
    faults: Counter[str]
    begun: Sequence[tuple[float, str]]
    recovery_seconds: Mapping[str, float]
    problems: list[str] = field(default_factory=list)

    def judge(self) -> list[str]:
        """All that is broken."""
        first, attacked, last = self.phases
        broken = [*self.problems, *self.books.problems]
        before, during = self._p99(first), self._p99(attacked)
        if during > FACTOR * before:
            broken.append(f"p99 of a submit: {during:.3f} s under attack, {before:.3f} s undisturbed")
        for part in ("API", "Redis", "dispatcher"):
            start = self.memory.highest(part, first.begin, first.end)
            end = self.memory.highest(part, last.end - 10, last.end)
            if end > start + GROWTH_BYTES:
                broken.append(f"memory of {part}: {_mib(start)} before, {_mib(end)} after")
        return broken

    def print(self) -> None:
        """Print the table."""
        print(f"\n{'phase':<14}{'submits':>9}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}")
        for phase in self.phases:
            self._print_calls(phase.name, self._calls(phase))
        self._print_calls("in outages", [call for call in self.books.calls if self._in_outage(call)])
        print(f"\n{'memory MiB':<14}" + "".join(f"{phase.name:>14}" for phase in self.phases) + f"{'end':>9}")
        for part in self.memory.samples:
            sizes = [self.memory.highest(part, phase.begin, phase.end) for phase in self.phases]
            end = self.memory.highest(part, self.phases[-1].end - 10, self.phases[-1].end)
            print(f"{part:<14}" + "".join(f"{_mib(size):>14}" for size in sizes) + f"{_mib(end):>9}")
        print(f"\nhonest jobs: {len(self.books.accepted)} accepted; {dict(Counter(self.books.ended.values()))}")
        print(f"sent again: {dict(self.books.repeated)}")
        print("\nfaults: " + ", ".join(f"{name} × {count}" for name, count in sorted(self.faults.items())))
        slowest = sorted(self.recovery_seconds.items(), key=lambda row: -row[1])
        print("slowest recovery: " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in slowest))
        print("attacks: " + ", ".join(f"{name} × {count}" for name, count in sorted(self.attacks.items())))
        calls = sorted(self._calls(self.phases[1]), key=lambda call: -call.seconds)
        self._print_slowest(calls[:_SHOWN])
        for line in self.judge():
            print(f"BROKEN: {line}")

    def _print_calls(self, name: str, calls: Sequence[Call]) -> None:
        times = sorted(call.seconds * 1000 for call in calls) or [0.0]
        p50, p99 = statistics.median(times), _percentile(times, 0.99)
        print(f"{name:<14}{len(calls):>9}{p50:>9.1f}{p99:>9.1f}{times[-1]:>9.1f}")

    def _print_slowest(self, calls: Sequence[Call]) -> None:
        shown = [f"{call.seconds * 1000:.0f} ms{self._after(call)}" for call in calls]
        print("slowest under attack: " + ", ".join(shown))

    def _after(self, call: Call) -> str:
        before = [(at, name) for at, name in self.begun if at <= call.began + call.seconds]
        return f" ({call.began - before[-1][0]:.0f} s after {before[-1][1]})" if before else ""

    def _p99(self, phase: Phase) -> float:
        return _percentile(sorted(call.seconds for call in self._calls(phase)) or [0.0], 0.99)

    def _calls(self, phase: Phase) -> list[Call]:
        """The calls that began in a phase, and while no part that takes jobs was broken on purpose."""
        return [
            call
            for call in self.books.calls
            if phase.begin <= call.began < phase.end and not self._in_outage(call)
        ]

    def _in_outage(self, call: Call) -> bool:
        return any(begin < call.began + call.seconds and call.began < end for begin, end in self.outages)


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f}"
