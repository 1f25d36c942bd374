"""The GPU side: claims jobs from the queue and generates their images on warm models. Knows torch, never fastapi.

main.py          builds one worker process; `python -m worker` runs it
settings.py      its settings
check.py         `python -m worker.check`: whether a worker could start, and each model makes an image
convert.py       `python -m worker.convert`: a hypernetwork, a pickle, as safetensors
healthcheck.py   `python -m worker.healthcheck`, for containers
loop/            claim, lease, heartbeat, completion
generation/      a job on a diffusion model, from inputs to images
tasks/           what runs each kind of job
networks/        upscalers and other networks beside the models, on images
preprocessors/   models that make control images of ordinary ones
engine/          which job's call is served next, and which jobs share it
pool/            loaded models, which one is evicted, which memory plan is taken
encoding/        prompts to embeddings
adapters/        LoRA
training/        a LoRA learns, step by step
checkpoints/     models read from files
offload/         components placed and moved by the memory plan
families/        one file per family of models
safety/          images are checked before they are stored or shown
sampling/        schedulers, previews, step cache
runtime/         device, kernels, memory tracker, workarounds
"""
