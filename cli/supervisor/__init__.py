"""`darkroom up`: a whole service on one machine, as child processes.

up.py            starts, supervises and stops the parts in order
start_check.py   misspelt settings, and what the catalogue names, before anything starts
announcement.py  tells people what is prepared, and when the service is ready
start_report.py  what a start found: devices, models and their plans
gpus.py          a worker for each GPU: which there are, and its environment
process.py       one child process: restart when it dies or hangs, end with its parent
beats.py         receives the beats by which children show that they do not hang
redis_server.py  finds a Redis binary and runs it on a unix socket
"""
