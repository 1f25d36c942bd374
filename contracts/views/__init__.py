"""Jobs as clients see them, in responses and webhooks, made from records. Reads nothing; knows no HTTP.

job.py         a job
prediction.py  a job as clients of Replicate's API see it
lists.py       a page of a list
links.py       URLs of a job and its files
"""
