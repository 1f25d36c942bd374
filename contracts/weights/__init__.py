"""Weight files by their headers, without torch.

header_text.py         the text of a safetensors header, bounded while it is read
safetensors.py         names, dtypes, shapes and offsets of a file's tensors
finite.py              refuses files with NaN or infinite values
lora_files.py          family, layout, ranks and matching models of a LoRA file
lora_layouts.py        naming schemes of LoRA files: which layer each key belongs to
original_names.py      layers under the names of the original releases
lora_settings.py       how a LoRA's trainer scaled it
row_files.py           whether the files of a row are what the row says
controlnet_files.py    what kind of control a single file is
inversion_files.py     vectors and widths of a textual inversion
inversion_models.py    the models that a textual inversion suits
ip_adapter_files.py    kind and widths of an IP-Adapter file
ip_adapter_models.py   models and image encoders that an IP-Adapter fits
ip_adapter_rows.py    the catalogue's IP-Adapters: their files, and the image encoders that they name
checkpoint_limits.py   tasks and schedulers of one checkpoint
parameter_counts.py    numbers of values and configurations of a checkpoint's components
architectures/         the same for published checkpoints that are not on this machine (JSON)
"""
