"""The stages of training, each a command, and the bad adapters.

autoencoder.py    VAEs with 4 and 16 channels
text.py           text encoders
unpack.py         takes the shipped autoencoders and text encoders instead
latents.py        scenes encoded once, for all later stages
inheritance.py    where the UNet of Stable Diffusion 1 begins
denoiser.py       UNet or transformer
edits.py          FLUX taught to edit, from pairs of scenes
guidance.py       the guidance embedding of FLUX
controlnet.py     a ControlNet for a trained denoiser
lora.py           a LoRA adapter
effect.py         its effects as LoKr and as a hypernetwork
inversion.py      a textual inversion, made of the vectors of two words
image_encoder.py  what sees the references of IP-Adapters
ip_adapter.py     an IP-Adapter, and Redux
t2i_adapter.py    a T2I-Adapter
upscaler.py       an upscaler
eraser.py         an eraser, which fills in what a mask covers
classifier.py     the classifier of shapes, for safety checks
mismatches.py     adapters that a service must refuse
"""
