"""Events of jobs, for clients that wait.

notifier.py   one Redis subscription a process, which wakes all waiting clients
attendance.py clients that wait for jobs that are to end with them
waiting.py    `Prefer: wait`: waits for a job's end
sse.py        a job's events as a stream of server-sent events
"""
