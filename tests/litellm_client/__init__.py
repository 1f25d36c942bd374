"""`litellm` against the service; run by `make test-clients`, since it brings 380 MB into an environment of its own."""
