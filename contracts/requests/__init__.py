"""From a client's request to the parameters that a worker runs.

fields.py             the fields that shape an image, each declared once
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
inversions.py         its textual inversions, by the list and by words of the prompts
parameters.py         the parameters stored with a job
"""
