"""The HTTP API: parses requests, queues jobs, and shows them to their owners. Runs no model.

main.py             builds the application
__main__.py         runs it: `python -m app`
connections.py      HTTP connections with deadlines
settings.py         settings from the environment
services.py         everything that one process holds open
routes/             one module for each subject of the API
dependencies/       FastAPI providers: what routes are given
submission/         from a parsed request to a queued job
parsing/            request bodies, JSON and forms
inputs/             images that requests name
dialects/           other services' APIs (OpenAI Images)
events/             waiting for jobs, event streams
openapi/            the OpenAPI document
page/               Darkroom's own page, which browsers get at /
middleware/         request ids, access log
auth.py             from credentials to a principal and what it may do
list_rate.py        how often each caller may list something
admission.py        whether any worker has the memory to run a job
disk_space.py       whether the storage has space for what a request would store
errors.py           from errors to HTTP status, code and title
error_handlers.py  every error as a response, in the dialect of its path
job_response.py     a job as its owner sees it
readiness.py        whether a job sent now would be run
prompt_counter.py   tokens of prompts, by the tokenizers on this machine
prometheus.py       Prometheus metrics
periodic.py         periodic work beside the requests
"""
