"""The worker's loop: claims jobs, keeps their leases, completes them; the only room that knows the queue.

consumer.py       the loop: claim → serve → complete
resources.py      what the loop works with: Redis, the queue, the models, the storage
jobs_in_flight.py jobs from their claim to their end: starts them, serves their calls, completes them
claimer.py        claims jobs that can run now, and has prepared what others lack
job_work.py       what a claimed job does, and what its errors mean for the queue
claim_policy.py   what to ask the queue for next: minimum residency of a model, room for more jobs
progress.py       watches jobs in flight: progress out, cancels and deadlines in
completion.py     stores images and writes how jobs ended
storage_outage.py claims nothing and keeps what was generated while the storage takes no images
heartbeat.py      extends leases, reaps those of lost workers, ends a process that hangs
preparation/      prepares models, ControlNets and LoRAs that are not in memory
lookahead.py      prepares what the next jobs lack and encodes their prompts, in the background
rq_job.py         the function that RQ's records name
"""
