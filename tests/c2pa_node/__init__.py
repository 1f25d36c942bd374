"""Signed images read by npm's c2pa package; `make test-node` runs it."""
