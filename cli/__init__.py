"""The command line: an HTTP client, and the processes of a service on one machine.

Knows `contracts` and the addresses of the parts; starts `app` and `worker` as programs and imports neither.
"""
