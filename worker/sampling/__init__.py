"""What surrounds the denoising steps.

schedulers.py  makes a scheduler from its public name
step_cache.py  `speed: fast`: predicts the denoiser's result at some steps
previews.py    small JPEGs of the image while it is denoised
"""
