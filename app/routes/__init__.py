"""The routes, one module for each subject; `app/main.py` includes them.

tasks.py       create a job of each task; run a job again
trainings.py   train a LoRA, a textual inversion or a ControlNet
plan.py        check a request without queueing it
jobs.py        list, show, cancel and delete jobs
images.py      download a job's images
png_info.py    read a request from an image
events.py      stream a job's events
uploads.py     upload images
adapter_files.py  what uploads of adapters and ControlNets share
loras.py       list, upload and delete LoRAs
textual_inversions.py  the same of textual inversions
ip_adapters.py  the same of IP-Adapters
controlnets.py  the same of ControlNets
models.py      models, and the schemas of their requests
catalogue.py   schedulers, preprocessors, upscalers, VAEs
preprocess.py  make a control image and show it
workers.py     operators: the live workers
openai.py      OpenAI's image API
openai_files.py    its files of requests and results
openai_batches.py  its batches
huggingface.py  Hugging Face's inference calls
replicate.py   Replicate's predictions
replicate_models.py  its models and versions
replicate_files.py   its files
admin_jobs.py   operators: the jobs of all owners
admin_queues.py operators: what waits; purge, pause, drain
admin_keys.py  operators: the API keys
usage.py       what API keys have used, by day
a1111.py       AUTOMATIC1111's web UI API: images, progress, options
a1111_lists.py its lists, and its ControlNet extension
webhook_secrets.py  the secret that verifies an owner's webhooks
webhooks.py    documentation of the webhooks that the service sends
page.py        Darkroom's own page, and its files
provenance.py  the certificate by which images' signatures are checked
health.py      liveness and readiness
metrics.py     Prometheus metrics
"""
