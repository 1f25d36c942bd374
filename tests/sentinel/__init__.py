"""A whole service on a primary with replicas and Sentinels that fails over under load; `make sentinel` runs it.

DARKROOM_SENTINEL_SERVERS names the server binaries to try, by the separator of PATH; without it, the one that `darkroom
up` would start.
"""
