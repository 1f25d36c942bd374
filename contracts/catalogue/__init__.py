"""What the service offers: checkpoints and adapters, model families, schedulers.

adapters.py     rows of LoRAs, IP-Adapters and textual inversions
models.py       rows of models
catalogue.py    all rows together
controlnets.py  rows of ControlNets
vaes.py         rows of VAEs that take the place of models' own
reader.py       reads them from a TOML file
networks.py     rows of networks that run by themselves: upscalers and erasers
rows.py         what rows of all kinds have: where their weights come from
quantizations.py  kinds of quantization that a row can name
guidance.py     kinds of guidance: their options and defaults
lines.py        the line of a catalogue file that a problem is on
cached.py       rows whose files are in the cache of a hub
families.py     what each model family supports: modes, fields, sizes, defaults
family.py       what such a row says; tasks and modes
preprocessors.py  preprocessors of control images, and their options
schedulers.py   schedulers by public name
family_rows/    the rows of families, by what reads their prompts
"""
