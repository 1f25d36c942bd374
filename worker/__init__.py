"""The GPU side: claims jobs from the queue and generates their images on warm models. Knows torch, never fastapi.

main.py          builds one worker process; `python -m worker` runs it
settings.py      its settings
check.py         `python -m worker.check`: whether a worker could start, and each model makes an image
convert.py       `python -m worker.convert`: a hypernetwork, a pickle, as safetensors
healthcheck.py   `python -m worker.healthcheck`, for containers
loop/            claim, lease, heartbeat, completion
generation/      a job on a diffusion model, from inputs to images
tasks/           what runs each kind of job
networks/        runs upscalers and other networks on images
preprocessors/   models that turn ordinary images into control images
engine/          which job's call is served next, and which jobs share it
pool/            loaded models, which one is evicted, which memory plan is taken
encoding/        prompts to embeddings
adapters/        LoRAs, IP-Adapters and textual inversions
training/        trains LoRAs, textual inversions and ControlNets, step by step
checkpoints/     models read from files
offload/         components placed and moved by the memory plan
families/        one file per family of models
safety/          checks images before they are stored or shown
sampling/        schedulers, previews, step cache
runtime/         device, kernels, memory tracker, workarounds
"""
