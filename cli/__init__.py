"""The `darkroom` command: an HTTP client, administration, and a whole service on one machine.

Imports `contracts` only; `app`, `worker` and `dispatcher` are started as programs.

main.py          reads the command line and runs the command
commands/        the commands, one file each
again/           makes an image again as its receipt says, and compares
options/         options that several commands have
catalogue/       rows of a catalogue on this machine
supervisor/      `darkroom up`: Redis, API, workers and dispatcher as child processes
client.py        a client of the HTTP contract
job_run.py       one job: its options, a progress bar, and files for its images
listing.py       the rows of a listing, as a table or as JSON
env_file.py      variables from `.env`
redis_access.py  opens a running service's Redis for the administration commands
demo.py          `make demo`: one image of each task, and a contact sheet
"""
