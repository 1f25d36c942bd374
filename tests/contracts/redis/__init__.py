"""Connections, scripts and keys of Redis."""
