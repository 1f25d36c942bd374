"""The commands of `darkroom`, one file each: its options, and what it does.

up.py          the whole service on this machine
check.py       what `up` would refuse
generate.py    one job, with a progress bar
train.py       a LoRA, with a progress bar
preprocess.py  a control image of a photo
upscale.py     a larger image
erase.py       an image without something
jobs.py        list, show, cancel, fetch, watch
admin.py       all owners' jobs, queues, workers, usage and keys
plan.py        the memory plans of a model
keys.py        API keys
models.py      list, add, remove, fetch
hub.py         commits of hub repositories
loras.py       uploaded LoRAs
convert.py     a hypernetwork as safetensors
verify.py      how an image was made, by its signature
webhooks.py    the signing secret
settings.py    all settings, where they come from, what they mean
"""
