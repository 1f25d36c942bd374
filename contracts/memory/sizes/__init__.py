"""Sizes of everything that a job needs, known before anything is loaded. Knows no devices, budgets or requests.

component.py  one component: its role, bytes and activations
models.py     the components of a model, from its files or the published architecture
extras.py     a request's ControlNets and adapters as components
on_hub.py     the same of what is still on a hub, by asking it
networks.py   what upscalers and erasers take
"""
