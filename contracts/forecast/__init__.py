"""When each job will end: what it costs, and in which order the workers serve it. Reads no Redis.

snapshot.py      what is known of the queue at one moment: jobs, accounts of owners, workers
snapshot_reader.py reads it from what the scripts tell
costs.py         seconds of a job, from the costs that were measured of earlier ones
serving_order.py how a worker weighs its jobs: numbers that its policy and the forecast share
workers.py       which of its jobs a worker serves next, as its policy would
simulation.py    claims and ends of all jobs, one after another
deep_queue.py    an estimate for a job of a queue that is too long to simulate
backlog.py       seconds of work that wait, by model
"""
