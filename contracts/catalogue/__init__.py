"""What the service offers: checkpoints and adapters, model families, schedulers.

catalogue.py    models, LoRAs and ControlNets, read from a TOML file
rows.py         what rows of all kinds have: where their weights come from
families.py     what each model family supports: modes, fields, sizes, defaults
schedulers.py   schedulers by public name
"""
