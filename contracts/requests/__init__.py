"""From a client's request to the parameters that a worker runs.

fields.py             the fields that shape an image, each declared once
guidance.py           other kinds of guidance, their options, and checks of them
strict_model.py       the base of everything that clients send
images/               input images: their fields, their size, and what is made of them
schema.py             the requests, one class a task, and their fields about delivery
validation.py         checks of a request against the catalogue
effects.py            checks that no field is without effect beside the others
step_rules.py         checks of steps, scheduler and speed
catalogue_reload.py   a catalogue whose file changes while a process runs
model_defaults.py     checks at the start that models' defaults are valid
defaults.py           fills in defaults, size, seed and storage keys
prompts.py            the prompts of a request, read in the syntax that it names
prompt_counts.py      tokens of a job's prompts, and which are too long
vaes.py               whether its VAE can take the place of the model's own
refining.py           its refiner: checks, and which models can be one
inversions.py         its textual inversions, by the list and by words of the prompts
parameters.py         the parameters stored with a job on a diffusion model
plain_images.py       what upscaled images and their like have in common
plain_requests.py     the requests of these tasks
upscaling.py          the request of an upscaled image, and its parameters
erasing.py            the request of an image from which something is erased, and its parameters
training/             trainings of LoRAs: their request, and their parameters
any_parameters.py     the parameters of any task, read by the task that they name
task_parameters.py    what code asks of them that does not know the task
"""
