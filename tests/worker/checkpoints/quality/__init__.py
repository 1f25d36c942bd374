"""What takes minutes: run by `make judge`."""
