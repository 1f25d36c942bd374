"""`darkroom up`: a whole service on one machine, as child processes.

up.py            starts, supervises and stops the parts in order
process.py       one child process: restart with a growing pause, end with its parent
redis_server.py  finds a Redis binary and runs it on a unix socket
"""
