"""Models that control a denoiser, from their files.

controlnets.py         ControlNets, in folders and in one file
control_loras.py       ControlNets that are stored as differences from a UNet
flux_control_loras.py  FLUX.1 Control models that are stored as differences from a usual one
t2i_adapters.py        T2I-Adapters, and whether they fit a model
"""
