"""OpenAI's batches: files of image requests, run as jobs of the lowest priority in the course of a day.

schema.py      bodies and answers of its routes
lines.py       the lines of a batch's file
validation.py  what is wrong with a file
results.py     lines of results
finishing.py   the end of a batch
line_jobs.py   a line as a job
feeder.py      the work: jobs for lines, results for jobs, a bounded number at a time
"""
