"""Jobs of random fates on several workers: none is lost, none ends twice, and the books are empty afterwards."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest

from contracts.errors import Conflict
from contracts.jobs.events import read_events
from contracts.jobs.records import JobState, Progress
from contracts.leases.claim import Claim
from contracts.leases.claims import Claims
from contracts.leases.criteria import ClaimCriteria, MustRunAlone, NotReady
from contracts.queue.client import JobQueue
from contracts.redis import keys
from contracts.requests.schema import Priority
from tests.support.claims import MakeClaims, reports
from tests.support.parameters import parameters

MODELS = ("first", "second")
JOBS = 40
ENDS = {"completed", "failed", "cancelled"}


class Worker:
    """A worker with up to three jobs in flight, which forgets them when it is killed."""

    def __init__(self, claims: Claims, chance: random.Random) -> None:
        self.claims = claims
        self.running: list[Claim] = []
        self._chance = chance

    def claim(self) -> Claim | None:
        if any(claim.alone for claim in self.running) or len(self.running) == 3:
            return None
        criteria = ClaimCriteria(
            warm=self._chance.sample(MODELS, 1),
            ready=self._chance.choice([None, MODELS, MODELS[:1]]),
            deferred=self._chance.choice([(), (), MODELS[:1]]),
            room={tier: self._chance.randint(0, 2) for tier in Priority},
            in_flight=len(self.running),
        )
        try:
            claim = self.claims.claim(criteria)
        except (NotReady, MustRunAlone):
            return None
        if claim is not None:
            assert not (claim.alone and self.running), "it runs beside others"
            self.running.append(claim)
        return claim

    def report(self) -> None:
        told = reports(*self.running, progress=Progress(step=1, steps=2), used_seconds=self._chance.uniform(0, 5))
        assert "lost" not in self.claims.advance(told)

    def end_one(self) -> None:
        if not self.running:
            return
        claim = self.running.pop(self._chance.randrange(len(self.running)))
        used_seconds = self._chance.choice([None, 1.0])
        if self._chance.random() < 0.3:
            device_failed = self._chance.random() < 0.3
            assert self.claims.release(claim, device_failed=device_failed, used_seconds=used_seconds)
        else:
            assert self.claims.finish(claim, JobState.COMPLETED, used_seconds=used_seconds, images=[])

    def die(self, queue: JobQueue) -> list[Claim]:
        """Be killed: all leases expire, and another worker reaps them."""
        lost, self.running = self.running, []
        for claim in lost:
            queue.connection.zadd(keys.LEASES, {claim.job.id: 1})
        self.claims.reap()
        return lost


@pytest.mark.parametrize("seed", range(3))
def test_however_jobs_fare_each_ends_once_and_the_books_are_empty(
    queue: JobQueue, make_claims: MakeClaims, seed: int
) -> None:
    chance = random.Random(seed)
    print(f"seed {seed}")
    workers = [Worker(make_claims(f"worker-{number}", max_attempts=3), chance) for number in range(4)]
    ids: list[str] = []
    stale: list[Claim] = []
    claimed: Counter[str] = Counter()

    def submit() -> None:
        if len(ids) < JOBS:
            fields = parameters(model=chance.choice(MODELS), num_inference_steps=chance.choice([4, 28, 50]))
            job = queue.submit(fields, owner=chance.choice("abc"), priority=chance.choice(list(Priority)))
            ids.append(job.id)

    def cancel() -> None:
        with suppress(Conflict):
            queue.cancel(chance.choice(ids))

    def claim() -> None:
        found = chance.choice(workers).claim()
        if found is not None:
            claimed[found.execution] += 1

    acts: list[tuple[Callable[[], object], int]] = [
        (submit, 4), (claim, 8), (lambda: chance.choice(workers).report(), 2),
        (lambda: chance.choice(workers).end_one(), 4), (cancel, 1),
        (lambda: stale.extend(chance.choice(workers).die(queue)), 1),
    ]  # fmt: skip
    submit()
    for act in chance.choices([act for act, _ in acts], [weight for _, weight in acts], k=400):
        act()
    while len(ids) < JOBS:
        submit()
    for worker in workers:
        while worker.running:
            worker.end_one()
    last = make_claims("last")
    any_tier = ClaimCriteria(room=dict.fromkeys(map(str, Priority), 1))
    while (left := last.claim(any_tier)) is not None:
        last.finish(left, JobState.COMPLETED, images=[])

    assert [last.finish(claim, JobState.COMPLETED, images=["stale"]) for claim in stale] == [None] * len(stale)
    for id in ids:
        assert queue.fetch(id).state.is_final
        kinds = [event.kind for event in read_events(queue.connection, id)]
        assert sum(kind in ENDS for kind in kinds) == 1
    assert set(claimed.values()) == {1}
    left_over = {keys.LEASES, keys.OWNER_LOAD, *(keys.ACCOUNTS + tier for tier in Priority)}
    assert not [key for key in left_over if queue.connection.exists(key)]
    assert queue.connection.keys("rq:queue:*") == []
    assert queue.connection.keys("rq:wip:*") == []
