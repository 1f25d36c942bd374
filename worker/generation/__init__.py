"""One job: from its parameters to images, a receipt and stored files.

generate.py        the algorithm: model, adapters, inputs, prompts, denoising, restore, result
denoising.py       the pipeline's call of one stage, with previews, step cache and guidance
alone.py           the same for a job that has the worker for itself
t2i_adapters.py    features of T2I-Adapters, added in the denoiser's calls
guidance.py        other guidance than plain, by diffusers' guiders
hires.py           between the two passes of `hires`: images or latents become larger
control_maps.py    control images that models make of the job's photos
inputs.py          reads and decodes the job's input images
steps/             what follows the steps from inside the pipeline
inpainting.py      crops around a mask, pastes the result back, blends it in
stages.py          what passes from one stage of a job to the next
trial.py           images that are discarded: one tells whether a model works, one compiles it
results/           what a job leaves: images, their metadata, its receipt
"""
