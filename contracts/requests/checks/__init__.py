"""Checks of a request against the catalogue, before anything is queued.

validation.py  all checks of a request
effects.py     that no field is without effect beside the others
step_rules.py  steps, scheduler and speed
vaes.py        whether its VAE can take the place of the model's own
ip_adapters.py its IP-Adapters
hires.py       its second pass, and what can enlarge images for it
controls.py    its ControlNets and T2I-Adapters, each by itself and together
control_maps.py control images that a job makes itself
t2i_adapters.py the size that its T2I-Adapters need
cascading.py   its cascade
refining.py    its refiner
second_models.py which models can be either
"""
