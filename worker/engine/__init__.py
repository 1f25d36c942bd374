"""The step engine: stock pipelines as coroutines, whose denoiser, ControlNet and VAE calls are made together.

engine.py    serves one call after another, until all jobs have ended
job.py       one job in flight
coroutine.py a job's work, which sleeps while it waits for a call
attempts.py  makes the calls of a group, and splits it where one fails
views.py     takes the place of a module that all jobs share in a pipeline
calls.py     describes calls, joins them and cuts their results
residency.py what the device is set up for: model, plan, adapters
kept_memory.py what sleeping jobs keep on the device, and the room beside it
policy.py    which suspended calls are served next; pure
accounts.py  what each owner has been served
turns.py     which model the device serves, and for how long
meter.py     what served calls have cost each job
flops.py     what calls compute, in floating-point operations
costs.py     what a call of so many rows takes, learned while running
"""
