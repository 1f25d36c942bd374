"""How many values a component has, and how many operations its calls take.

parameter_counts.py  numbers of values of a checkpoint's components
architectures/       the same of published checkpoints, and their configurations (JSON)
flops.py             floating-point operations of components' calls, as they were counted (JSON)
"""
