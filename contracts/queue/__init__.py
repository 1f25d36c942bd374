"""The clients' side of the queue: how jobs are submitted, found, waited for and cancelled.

client.py            JobQueue: submit, fetch, cancel, delete
new_job.py           a job before it is queued: its first record, and RQ's fields
limits.py            limits on an owner's and an API key's jobs
eta.py               positions in the queue, and estimated times
listing.py           an owner's jobs, or all, in pages
operations.py        what operators do with all owners' jobs: requeue, change priority, purge, pause, drain
waiting_queues.py    the queues in which jobs wait, by priority, model and owner
running.py           an owner's running jobs
stats.py             jobs by state, queue depths
listener.py          waits for news of jobs
attendance.py        jobs that are cancelled once nobody waits for them
idempotency.py       one call made once, however often it is sent
retries.py           calls that client libraries send again by themselves
usage/               what the jobs of API keys use
"""
