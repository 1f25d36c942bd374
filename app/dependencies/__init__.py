"""FastAPI providers: what routes are given. Each alias that a route uses ends in `Dep`.

services.py      the open services, and the links of a response
access.py        the principal, its scopes and rate, its own jobs
web_pages.py     what pages of other sites may not make browsers send
bodies.py        request bodies, read once and within limits
submissions.py   the context of a submission, the idempotency key, `Prefer: wait`
queries.py       filters and pages of lists
"""
