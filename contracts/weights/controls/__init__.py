"""ControlNets and T2I-Adapters in one file: what they are, and the models that they suit.

controlnet_files.py   what kind of control a single file is
control_lora_files.py ControlNets that are stored as differences from a UNet
flux_control_lora_files.py FLUX.1 Control transformers that are stored as differences from a usual one
controlnet_models.py  the models that one suits
transformer_controlnets.py the models that a ControlNet of SD3, FLUX.1 or Qwen-Image suits
t2i_adapter_files.py  the configuration of a T2I-Adapter in one file, and the models that it suits
"""
