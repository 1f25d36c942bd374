"""From a parsed request to a queued job.

submit.py        from a draft to a queued job, and the answer when the client waits for it
checks.py        everything about a request that can be known before its job is queued
step_checks.py   the check of a single step from kept latents
training.py      the checks of a training
resuming.py      a training that continues an earlier one
training_rules.py  what its fields, the catalogue and the owner's adapters allow together
idempotency.py   calls that may be repeated and create something once
uploads.py       an image that is sent ahead of its request
retries.py       calls that client libraries send again by themselves
rerun.py         the request of an earlier job, with changes
plain/           tasks that run on no diffusion model
"""
