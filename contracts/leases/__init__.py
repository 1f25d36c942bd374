"""The workers' side of the queue: which job a worker gets, and how it reports, ends or returns it.

claims.py            claim, extend, advance, finish, release, reap: each one atomic step
criteria.py          the jobs that a worker can take, and the answers that are not a job
claim.py             a leased job, and what its worker reports of it
reaper.py            reaps on behalf of a worker or an API process
waiting_jobs.py      tells waiting jobs how the preparation of their files goes on
"""
