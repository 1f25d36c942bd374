"""`litellm` against the service; run by `make test-clients`, in an environment of its own: it brings 380 MB."""
