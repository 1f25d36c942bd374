"""IP-Adapters: reference images that act on their own jobs' rows, or lengthen their prompts.

image_encoders.py   what CLIP's and SigLIP's image encoders give of reference images
ip_adapters.py      the IP-Adapters of a job, from the catalogue
image_prompts.py    an IP-Adapter file and reference images -> keys and values of each layer
attention_hooks.py  hooks that make them act
redux.py            FLUX.1 Redux: reference images -> tokens behind those of the prompt
"""
