"""How a worker weighs the jobs that it serves: its step engine follows these numbers, forecasts assume them."""

from __future__ import annotations

#: Remaining seconds count half when a job's age is so many times as long, a fifth at twice that age, and so on. It
#: keeps the latency of long jobs (p99) below twice that of first come, first served, at little cost to short ones.
AGE_FACTOR = 10.0
#: Weight of each second that an owner was served beyond other waiting owners. With less than 1, the short jobs of
#: one owner go before a long job of another for longer, up to 4 times its length: better on average, still fair.
LEAD_WEIGHT = 0.25
#: A deadline is about to be missed when it is closer than this multiple of the remaining seconds.
DEADLINE_MARGIN = 1.5
#: Remaining seconds are predicted: a deadline counts as missed only when less than this part of them is left.
DEADLINE_TOLERANCE = 0.9
#: Future jobs also gain from work saved now, so joining pays a little more than the waiting jobs alone show.
EXPECTED_JOBS = 3
#: Share of its seconds by which calls that are not urgent may delay an urgent call.
URGENT_ALLOWANCE = 0.1
