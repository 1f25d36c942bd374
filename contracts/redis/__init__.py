"""Redis: connections, the table of keys, and the Lua scripts.

connection.py    connect, errors as Unavailable, and Scripts, which runs a script
failover.py      pools of connections that find the primary again
replication.py   waits until replicas have a job
access.py        what a process asks its Redis at its start
keys.py          every Redis key, with its type, life and owner
scripts/         one .lua file for each atomic step
"""
