"""Batches in OpenAI's sense: files of requests that are run as jobs within a day. Knows no HTTP.

files.py     files of requests and of results
records.py   a batch as it is stored
batches.py   their life: creation, one round of work after another under a lease, the end
listing.py   pages of an owner's files and batches
"""
