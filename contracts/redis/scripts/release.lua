-- Puts a job back at the front of its queue without counting the attempt. Returns 1; 0 if the lease was lost.
-- `max_device_failures` above 0: the worker's device failed while the job ran, perhaps because of the job. It runs
-- alone from then on, and fails after that many device failures.
if not holds_lease(arguments.id, arguments.execution) then return 0 end
local queue = redis.call('HGET', job_key(arguments.id), 'queue')
release_lease(arguments.id, queue, arguments.execution)
if arguments.max_device_failures > 0 then
  redis.call('HSET', job_key(arguments.id), 'solo', '1')
  if redis.call('HINCRBY', job_key(arguments.id), 'device_failures', 1) >= arguments.max_device_failures then
    finish(arguments.id, queue, 'failed',
      failure('worker_lost', 'the GPU of every worker that took this job failed while running it', true),
      arguments.ttl_seconds)
    return 1
  end
end
redis.call('HINCRBY', job_key(arguments.id), 'attempts', -1)
requeue(arguments.id, queue)
emit(arguments.id, 'queued', { reason = 'handed back' })
return 1
