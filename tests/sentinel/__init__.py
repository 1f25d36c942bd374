"""A whole service whose primary fails under load, with real replicas and Sentinels; `make sentinel` runs it.

DARKROOM_SENTINEL_SERVERS lists the server binaries to try, separated as in PATH. Without it, the one is tried that
`darkroom up` would start.
"""
