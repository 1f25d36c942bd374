"""What only a CUDA device can show: `make gpu`. Not part of `make test`; without a device each test fails."""
