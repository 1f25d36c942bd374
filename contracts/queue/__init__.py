"""The queue: what clients and workers do with jobs.

client.py            JobQueue: submit, fetch, cancel, delete
limits.py            limits on an owner's and an API key's jobs
records.py           a job's record: state, progress, images, error, receipt
record_reader.py     reads records, whichever release wrote them
leases.py            the workers' side: claim, extend, advance, finish, release, reap
reaper.py            reaps on behalf of a worker or an API process
waiting_jobs.py      tells waiting jobs how the preparation of their files goes on
eta.py               positions in the queue, and estimated times
events.py            a job's event stream
listener.py          waits for news of jobs
listing.py           an owner's jobs in pages
idempotency.py       one call made once, however often it is sent
retries.py           calls that client libraries send again by themselves
attendance.py        jobs that end when nobody waits for them any more
stats.py             jobs by state, queue depths
"""
