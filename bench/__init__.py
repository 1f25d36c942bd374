"""Each speed claim of the project as a command that makes it; `bench/README.md` holds the latest tables.

Three commands measure nothing: `bench.architectures` writes what the planner knows of component classes,
`bench.plans` the tables of docs/plans.md, `bench.families` that of docs/files.md.
"""
