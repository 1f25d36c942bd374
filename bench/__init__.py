"""Each speed claim of the project as a command that makes it; `bench/README.md` holds the latest tables."""
