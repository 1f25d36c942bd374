"""Schedulers, previews and the step cache: everything around the denoising steps.

schedulers.py      makes a scheduler from its public name
host_timesteps.py  schedulers whose steps never wait for the device
unipc.py           UniPC with its weights computed on the host
step_cache.py      `speed: fast`: predicts the denoiser's result at some steps
previews.py        small JPEGs of the image while it is denoised
"""
