"""What every long-running process of the service has: threads, an orderly end, a watchdog, reports of itself.

background.py       one named background thread
allocator.py        gives freed memory back to the system
start_errors.py     ends a program that cannot start, with one line that says why
permissions.py      who may read what a process writes
priority.py         how far a process goes behind others for the processor
shutdown.py         a signal asks to stop: how long what runs may take
watchdog.py         ends a process that hangs
rq_registration.py  registers a process where RQ's tools look
workers.py          what workers report of themselves
"""
