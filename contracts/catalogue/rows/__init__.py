"""The kinds of row in a catalogue file, and what each must say.

adapters.py       rows of LoRAs, IP-Adapters and textual inversions
models.py         rows of models
controlnets.py    rows of ControlNets
vaes.py           rows of VAEs that take the place of models' own
networks.py       rows of networks that run by themselves: upscalers and erasers
row.py            what rows of all kinds have: where their weights come from
preprocessors.py  preprocessors of control images, and their options
"""
