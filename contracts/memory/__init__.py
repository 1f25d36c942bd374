"""The memory planner: which component of a model is where while a request runs within a budget of device memory.

activations.py        values held beside the weights, as a function of pixels, tokens and images
activation_tables/    these functions, counted for each component class (JSON)
sizes/                how large models, ControlNets, adapters and other networks are
policy.py             what an operator allows of plans
workload.py           what is planned for: size and kind of one pipeline call
plan.py               placements, plans, and the strategies that a policy permits
estimate.py           one strategy for one workload: its plan, and what it costs
stage_bytes.py        bytes on the device in each stage, with every component placed
seconds.py            how long weights take to move
card.py               what a card of some size gives plans
stages.py             one plan over all stages of a job
moves.py              what a plan costs in moves over a sequence of calls
training.py           what a training takes beside its model
planner.py            the best plan for a workload within a budget, and a worker's capacity
"""
