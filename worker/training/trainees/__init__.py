"""What a training changes: the values that learn, how the model runs with them, the file that they become.

trainee.py     what a training changes: values that learn, and the file that they become
adapter.py     the LoRA's layers, in the denoiser and perhaps in text encoders, only during a step
inversion.py   the vectors of a textual inversion, which the text encoders read in each step
controlnet.py  a ControlNet, which reads control images beside the denoiser
copies.py      new ControlNets: copies of the denoiser's layers
"""
