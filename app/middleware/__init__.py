"""ASGI middleware.

request_id.py   gives each request an id
access_log.py   counts, times and logs each response
tracing.py      gives each request its place in a trace, and a span
head.py         answers HEAD wherever GET is answered
cors.py         lets pages of other origins use the API
public_url.py   serves the API at its public URL
unread_body.py  reads or cuts off what a refused request has not sent yet
"""
