"""What the HTTP side and the GPU side agree on. Knows pydantic, redis, rq and httpx; neither fastapi nor torch.

catalogue/             models, families, schedulers as data
prompts/               prompts as text and tokens
requests/              fields, validation, stored parameters
weights/               safetensors headers, LoRA files, architectures
memory/                from bytes and a budget to a plan
redis/                 connections, keys, Lua scripts
jobs/                  a job as it is stored: record, receipt, events
views/                 what clients get to see of jobs
queue/                 the clients' side of the queue: submit, find, wait, cancel
leases/                the workers' side: claim, report, finish, reap
forecast/              when jobs will end, and in which order workers serve them
storage/               files, in a folder or a bucket
uploads/               uploaded images and LoRAs, retention
batches/               files of requests that are run in the course of a day
auth/                  API keys and signed links
provenance/            Content Credentials: images that say where they come from
tracing/               traces: contexts that cross processes, and spans
processes/             threads, signals, watchdog, and what processes report of themselves
hub/                   repositories on the Hugging Face hub, and the cache of their files
outbound/              HTTP to addresses that clients name, webhooks
byte_sizes.py          sizes as people write and read them: 20GiB
controlnet_classes.py  classes of ControlNets, and kinds of control of unions
errors.py              all errors, as a tree
hub_revisions.py       the commits of hub repositories that all workers agree on
left_out_fields.py     fields that JSON leaves out where they have nothing to say
logs.py                log formats and context
log_text.py            the text format: what a person at a terminal reads
metrics.py             all metrics, counters and totals
redis_url.py           the forms of Redis' URL: one server, TLS, Sentinels
safety.py              checks of prompts and images, of other packages too
settings.py            settings that several processes share
settings_table.py      all settings as a table: values, where they come from, meanings
variables.py           settings' values in files and under old names; what an unknown variable was meant as
"""
