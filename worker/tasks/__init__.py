"""What a worker runs for each kind of job: pipelines of the pool, and networks beside them.

runs.py       what runs a job, by the class of its parameters: a new task is a line here
attempt.py    one attempt at a job, and what it may use
plain_task.py a job that computes beside the pool's models: turns, progress, memory, errors
train.py      a LoRA
upscale.py    an upscaled image
erase.py      an image from which something is erased
preprocess.py a control image that a model makes
"""
