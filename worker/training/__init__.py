"""Trains LoRAs, textual inversions and ControlNets on a loaded model, step by step, between other jobs' calls.

run.py           one training: its steps, its checkpoint, its result
packing.py       latents as tokens
examples.py      images and captions as latents and embeddings, and which of them a step learns from
objectives.py    what each family learns: noise, target, call of the denoiser
optimizers.py    AdamW in 32 and in 8 bits, and what a checkpoint has of it
job.py           a training as a job: its turns and checkpoints
images.py        what it has the model make: images of the class, and samples
preparation.py   from a loaded model and images to a training that can begin
checkpoints.py   its checkpoint in the storage
registration.py  its result among the owner's uploads
files.py         safetensors files whose bytes depend on their contents alone
trainees/        what a training changes: a LoRA, a textual inversion or a ControlNet
"""
