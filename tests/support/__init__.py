"""What tests of several packages share; no test file or conftest is imported by another.

adapters.py            jobs with a LoRA, and sets of adapters that must load
api_process.py         the API as a process on a socket of its own
bare_cases.py          what such a call is, and the request that it stands for; `bare_diffusers.py` makes it
built_in.py            the rows of the built-in catalogue, for catalogues of tests
color_profiles.py      ICC profiles made by hand
combinations.py        few combinations of families and modes in `make test`, all in `make judge`
claims.py              the worker's side of the queue, for tests of the queue alone
dispatcher_process.py  the dispatcher as a process that delivers to this machine
field_effects.py       varies one field of a request at a time, in every family and mode
forked_programs.py     our programs as processes that start at once; `forked_service.py` a whole `darkroom up`
forked_text.py         a program given as text, forked like them
forked_workers.py      the same for the processes of pytest-xdist
gguf_files.py          small GGUF files; `gguf_headers.py` headers by hand, hostile ones too
gpu_check.py           `make gpu-check`: what a CUDA card does with this worker
gpu_blocks/            what it runs, a function a block
hosts.py               host names: certificates, and a name service that changes its answers
hub.py                 a stand-in for the Hugging Face hub: commits, gates, faults, and what was fetched
hub_http.py            what that hub answers
hub_repositories.py    files of repositories for it
images.py              small images and masks, and the forms in which clients send them
inversions.py          small random textual inversions
ip_adapters.py         small random IP-Adapters and an image encoder; `ip_adapter_headers.py` without torch
jobs.py                jobs that passed validation, and running them on a pool
object_store.py        an S3 server that checks signatures
original_layout.py     single-file checkpoints in the layout of the models' own authors
parameters.py          job parameters for tests that need no image
receiver.py            an HTTP server that answers as planned: webhooks, images
released_layouts.py    tensors of transformers as their releases name and join them
requests.py            a valid body for each task, and submitting one
running_service.py     `darkroom up` as a process, and a client of it
scripted_worker.py     a worker that completes jobs without generating an image
smaller_models.py      the built-in models with fewer and narrower layers, for images that nobody looks at
structure.py           how the tree is built: rows, floors, cycles, lines
untrained/             small untrained checkpoints of families without a trained one, one file each, and the calls
                       of diffusers that their images equal; `untrained_parts.py` and `untrained_llm.py` what they
                       have in common
waiting.py             wait until a condition holds
weights.py             LoRA and ControlNet files with random weights
worker_reports.py      reports of workers with a given memory budget
workers.py             consumers in this process
"""
