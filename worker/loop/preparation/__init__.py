"""Prepares models, ControlNets and LoRAs that are not in memory, beside the jobs.

prefetch.py    the preparations of one worker, in the background
running.py     one of them while it goes on
news.py        tells waiting jobs, the log and the metrics how they go on
catalogue_news.py  rows that are added and removed while the worker runs
warm_list.py   loads the models that a worker has without being asked for them
"""
