"""Delivers webhooks. Knows httpx; neither fastapi nor torch, nor `app` or `worker`.

main.py          builds one dispatcher process; `python -m dispatcher` runs it
settings.py      its settings
dispatcher.py    the loop: take a message, begin its attempt
concurrency.py   the attempts under way, few per receiver
delivery.py      one attempt: render, sign, post, judge the answer
http_client.py   the POST itself
spans.py         the span of an attempt in the job's trace
rq_job.py        the function that RQ's records name
"""
