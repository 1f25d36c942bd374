"""Limits that refuse a request before any work is done on it: memory, disk space, rate.

admission.py    whether any worker has the memory to run a job
disk_space.py   whether the storage has space for what a request would store
list_rate.py    how often each caller may list something
"""
