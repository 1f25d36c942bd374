"""From a client's request to the parameters that a worker runs.

fields.py             the fields that shape an image, each declared once
entries.py            LoRAs, IP-Adapters, textual inversions, ControlNets; a refiner, a second pass
entry_parameters.py   these entries as they are stored with a job
guidance.py           other kinds of guidance, their options, and checks of them
strict_model.py       the base of everything that clients send
images/               input images: their fields, their size, and what is made of them
schema.py             the requests, one class a task, and their fields about delivery
catalogue_reload.py   a catalogue whose file changes while a process runs
model_defaults.py     checks at the start that models' defaults are valid
defaults.py           fills in defaults, size, seed and storage keys
parameters.py         the parameters stored with a job on a diffusion model
rebuilding.py         the request of stored parameters
training/             trainings of LoRAs: their request, and their parameters
any_parameters.py     the parameters of any task, read by the task that they name
task_parameters.py    what code asks of them that does not know the task
prompts/              the prompts of a request
checks/               checks of a request against the catalogue
plain/                tasks without a diffusion model
"""
