"""Honest and hostile clients together, for minutes, on a service that is being broken; `make soak` runs it.

    python -m tests.soak --minutes 20 [--workers 2] [--seed N]

It prints a table, and exits with 1 if an honest job was lost or ended twice, an attack was answered 500, memory
grew, or honest clients waited more than three times as long as in the undisturbed first minutes.

__main__.py       the phases: undisturbed, attacked and broken, recovering
honest.py         clients that submit jobs, send calls again, and follow each job to its end
attacks.py        what hostile clients send; a process of its own
faults.py         kills, hangs, a full disk, a full Redis
memory.py         resident memory of each part
report.py         the table and the verdict
sitecustomize/    makes each process of the service spin in native code when it is told to
"""
