"""ASGI middleware.

request_id.py   gives each request an id
access_log.py   counts, times and logs each response
"""
