"""The whole service, started by `darkroom up` and driven over HTTP only."""
