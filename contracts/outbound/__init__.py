"""Connections to addresses that clients name, and webhooks.

addresses.py   which addresses are allowed (SSRF guard)
http.py        the HTTP client that connects only to checked addresses
outbox.py      webhook messages: claim, finish
signing.py     webhook secrets and signatures
"""
