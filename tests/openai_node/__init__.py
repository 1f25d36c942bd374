"""Packages of npm, `openai` and Vercel's AI SDK; run by `make test-node`, since they need node."""
