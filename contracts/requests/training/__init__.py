"""Trainings of LoRAs: what clients send, and what is stored with the job.

request.py       the request, with its ranges and defaults
buckets.py       at which size an image is read
lora_settings.py how a LoRA is trained, whatever its images
parameters.py    what travels through the queue: images stored, defaults filled in
"""
