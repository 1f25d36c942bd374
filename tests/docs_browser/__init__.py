"""`/docs` in a browser; run by `make test-browser`, since it needs Chromium and node, and fails without them."""
