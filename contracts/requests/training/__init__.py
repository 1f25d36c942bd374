"""Trainings of LoRAs, textual inversions and ControlNets: what clients send, and what is stored with the job.

request.py     the request, with its ranges and defaults
buckets.py     at which size an image is read
trainable.py   which models can be trained for what, and with which fields
settings.py    how something is trained, whatever its images
parameters.py  what travels through the queue: images stored, defaults filled in
"""
