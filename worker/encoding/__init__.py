"""Prompts to embeddings.

encoder.py    encodes the prompts of one pipeline call, through the cache
placed_words.py  textual inversions, written in where their words stand
windows.py    long prompts in windows, and weighted words; how many tokens are read
cache.py      embeddings, and the cache of them with a byte budget
cpu_t5.py     T5 on the CPU: for the current job, and ahead of time for waiting ones
"""
