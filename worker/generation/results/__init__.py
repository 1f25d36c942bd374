"""Results of a job: images, their metadata, and its receipt.

infotext.py  the line of parameters that A1111's web UI writes
receipts.py  the receipt of a job, and the metadata of its files
outputs.py   the result of a job; encodes and stores its images
"""
