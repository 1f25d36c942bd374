"""From a parsed request to a queued job.

submit.py        check, read and store images, queue, answer
idempotency.py   calls that may be repeated and create something once
retries.py       calls that client libraries send again by themselves
rerun.py         the request of an earlier job, with changes
"""
