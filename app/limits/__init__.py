"""What a request is refused for before any work is done on it: no memory, no space, too many calls.

admission.py    whether any worker has the memory to run a job
disk_space.py   whether the storage has space for what a request would store
list_rate.py    how often each caller may list something
"""
