"""Use by the jobs of API keys: counted, limited by day, and written to the storage.

counts.py        by API key, day and model
files.py         past days, written to the storage as JSONL
daily_limits.py  limits on what the jobs of an API key use in a day
"""
