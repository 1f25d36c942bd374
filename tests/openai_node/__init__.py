"""The `openai` package of npm; run by `make test-node`, since it needs node, and fails without it."""
