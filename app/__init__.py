"""The HTTP API: parses requests, queues jobs, and shows them to their owners. Runs no model.

main.py             builds the application
__main__.py         runs it: `python -m app`
connections.py      HTTP connections with deadlines
settings.py         settings from the environment
services.py         everything that one process holds open
routes/             one module for each subject of the API
dependencies/       FastAPI providers: what routes are given
submission/         from a parsed request to a queued job
png_info/           requests from what image files say of how they were made
parsing/            request bodies, JSON and forms
inputs/             images that requests name
dialects/           other services' APIs (OpenAI Images)
events/             waiting for jobs, event streams
openapi/            the OpenAPI document
page/               Darkroom's own page, which browsers get at /
limits/             what a request is refused for before any work: memory, space, calls
monitoring/         readiness and metrics
middleware/         request ids, access log
audit.py            a log line for each action of an operator
auth.py             from credentials to a principal and what it may do
errors.py           from errors to HTTP status, code and title
error_handlers.py  every error as a response, in the dialect of its path
wording.py          words what pydantic says of a value
job_response.py     a job as its owner sees it
prompt_check.py     the operator's check of prompts
prompt_counter.py   tokens of prompts, by the tokenizers on this machine
periodic.py         periodic work beside the requests
"""
