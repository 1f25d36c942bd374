"""ASGI middleware.

request_id.py   gives each request an id
access_log.py   counts, times and logs each response
unread_body.py  reads or cuts off what a refused request has not sent yet
"""
