"""Clients generated from the OpenAPI document; run by `make test-node` and `make test-clients`, which need registries."""
