"""The blocks of `make gpu-check`: each a function that yields rows of figures.

setup.py       the model that they run, images of it, measuring
hardware.py    the card, host memory, copies, a device that fails, T5's arithmetic on the CPU
quantized.py   bitsandbytes' weights of 8 and 4 bits
memory.py      measured beside planned bytes, emulated cards, moves over a sequence of calls
speed.py       loading, steps, LoRAs, compiled blocks, synchronisations, overlapping copies
"""
