"""Weight files by their headers, without torch.

header_text.py         the text of a safetensors header, bounded while it is read
safetensors.py         names, dtypes, shapes and offsets of a file's tensors
gguf.py                the same of a GGUF file, whose weights may be packed
checkpoint_files.py    a checkpoint in one file of either kind
quantized.py           how a component is quantized, and what that makes of its size
quantized_files.py     weights that were quantized before they were saved
finite.py              refuses files with NaN or infinite values
networks.py            what kind of upscaler or eraser a file holds, and what memory it takes
preprocessor_models.py the same of the folder of a preprocessor
row_files.py           whether the files of a row are what the row says
controlnet_files.py    what kind of control a single file is
controlnet_models.py   the models that one suits
t2i_adapter_files.py   the configuration of a T2I-Adapter in one file, and the models that it suits
denoiser_files.py      the models whose denoiser a file suits
adapters/              LoRAs, textual inversions, IP-Adapters
vae_files.py           VAEs of the catalogue, and the models that they suit
checkpoint_limits.py   tasks and schedulers of one checkpoint
parameter_counts.py    numbers of values and configurations of a checkpoint's components
flops.py               floating-point operations of components' calls, as they were counted (JSON)
architectures/         the same for published checkpoints that are not on this machine (JSON)
"""
