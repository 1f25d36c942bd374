"""Files of adapters: what kind a file is, whose layers it has, and which models it fits.

lora_files.py         layers, layout, ranks and sizes of a LoRA file
lora_models.py        the family that a LoRA is made for, and the models that it matches
lora_layouts.py       naming schemes of LoRA files: which layer each key belongs to
lycoris_layouts.py    tensors and shapes of LoHa, LoKr, full differences, OFT, IA3 and kohya's DoRA
hypernetwork_files.py widths and settings of a hypernetwork
lora_settings.py      how a LoRA's trainer scaled it
original_names.py     layers under the names of the original releases
inversion_files.py    vectors and widths of a textual inversion
inversion_models.py   the models that a textual inversion suits
ip_adapter_files.py   kind and widths of an IP-Adapter file
ip_adapter_models.py  models and image encoders that an IP-Adapter fits
ip_adapter_rows.py    the catalogue's IP-Adapters: their files, and the image encoders that they name
"""
