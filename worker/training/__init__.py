"""Trains LoRAs, textual inversions and ControlNets on a loaded model, step by step, between other jobs' calls.

run.py           one training: its steps, its checkpoint, its result
trainee.py       what a training changes: values that learn, and the file that they become
adapter.py       the LoRA's layers, in the denoiser and perhaps in text encoders, only during a step
inversion.py     the vectors of a textual inversion, which the text encoders read in each step
controlnet.py    a ControlNet, which reads control images beside the denoiser
copies.py        new ControlNets: copies of the denoiser's layers
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
"""
