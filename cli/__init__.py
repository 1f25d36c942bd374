"""The `darkroom` command: an HTTP client, administration, and a whole service on one machine.

Imports `contracts` only; `app`, `worker` and `dispatcher` are started as programs.

    main.py          reads the command line and runs the command
    env_file.py      variables from `.env`
    client.py        a client of the HTTP contract
    check.py         `darkroom check`: what `up` would refuse
    generate.py      `darkroom generate`: one job, with a progress bar
    request_options.py  its options for the fields of a request, from the schema
    jobs.py          `darkroom jobs`: list, show, cancel, fetch, watch
    admin.py         `darkroom admin`: all owners' jobs, queues, workers, usage and keys
    demo.py          `make demo`: one image of each task, and a contact sheet
    plan.py          `darkroom plan`: the memory plans of a model
    sizes.py         sizes of a catalogue's rows for it, wherever their files are
    keys.py          `darkroom keys`: API keys
    models.py        `darkroom models`: list, add, remove, fetch; `catalogue_file.py` changes the file
    hub.py           `darkroom hub`: commits of hub repositories
    loras.py         `darkroom loras`: uploaded LoRAs
    webhooks.py      `darkroom webhooks`: the signing secret
    redis_access.py  opens a running service's Redis for the administration commands
    supervisor/      `darkroom up`: Redis, API, workers and dispatcher as child processes
"""
