"""A catalogue file of two models, a LoRA and two ControlNets, none of which is on this machine."""

SMALL_CATALOGUE = """
default_model = "sd"

[[models]]
id = "sd"
family = "sdxl"
source = "org/sd"

[[models]]
id = "schnell"
family = "flux"
source = "org/schnell"
refuses = ["guidance_scale"]

[[loras]]
id = "ink"
family = "sdxl"
source = "ink.safetensors"
title = "Ink"
trigger = "drawn in ink"

[[controlnets]]
id = "edges"
family = "sdxl"
source = "org/edges"
preprocessors = ["canny", "lineart"]

[[controlnets]]
id = "outlines"
family = "flux"
source = "org/outlines"
preprocessors = ["lineart"]
"""
