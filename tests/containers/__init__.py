"""The service as compose runs it: `make containers`. Not part of `make test`, which needs no container engine."""
