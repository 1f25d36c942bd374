"""Clients that are generated from the OpenAPI document: `make test-node` and `make test-clients`."""
