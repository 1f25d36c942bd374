"""The prompts of a request: how they are read, and how long they are.

reading.py     reads prompts in the syntax that the request names
counts.py      tokens of a job's prompts, and which are too long
inversions.py  its textual inversions, by the list and by words of the prompts
"""
