"""Trains a LoRA on a loaded model, one step after another; other jobs use the device in between.

run.py           one training: its steps, its checkpoint, its result
adapter.py       the LoRA's layers, which are in the model only during a step
examples.py      images and captions as latents and embeddings, and which of them a step learns from
objectives.py    what each family learns: noise, target, call of the denoiser
job.py           a training as a job: its turns, checkpoints and samples
checkpoints.py   its checkpoint in the storage
registration.py  its LoRA among those of the owner
lora_file.py     safetensors files whose bytes depend on their contents alone
"""
