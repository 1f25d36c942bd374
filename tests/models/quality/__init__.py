"""What the shipped weights generate: minutes of generation, run by `make judge`, not by `make test`."""
