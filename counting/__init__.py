"""Counts what component classes take, on torch's meta device, where tensors have shapes and no memory.

`python -m bench.architectures --write` writes the results into tables that plans and estimates of energy read.
Knows no jobs; nothing of the product imports it.

component_calls.py  builds a component from its configuration, and calls it as a pipeline does
live_tensors.py     follows every tensor of a run, and finds its peaks as a function of pixels, tokens and images
activations.py      an entry of a class's activation table
parameters.py       the numbers of values of a component, in the file of its architecture
flops.py            the floating-point operations of a component's calls
"""
