"""IP-Adapters: reference images that act on their own jobs' rows.

image_encoders.py   what CLIP image encoders give of reference images
ip_adapters.py      the IP-Adapters of a job, from the catalogue
image_prompts.py    an IP-Adapter file and reference images -> keys and values of each layer
attention_hooks.py  hooks that make them act
"""
