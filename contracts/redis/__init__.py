"""Redis: connections, the table of keys, and the Lua scripts.

connection.py    connect, errors as Unavailable, and Scripts, which runs a script
keys.py          every Redis key, with its type, life and owner
scripts/         one .lua file for each atomic step
"""
