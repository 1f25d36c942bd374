"""The documentation: `make docs` builds it, and runs these."""
