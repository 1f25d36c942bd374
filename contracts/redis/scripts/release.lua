-- Puts a job back at the front of its queue without counting the attempt. Returns 1; 0 if the lease was lost.
-- A job that was cancelled, or whose deadline has passed, ends instead.
-- `max_device_failures` above 0: the worker's device failed while the job ran, perhaps because of the job. It runs
-- alone from then on, and fails after that many device failures.
-- `needs`: what the job needs, as JSON, where an earlier release wrote less into its record.
write_even_if_full()
local id, key = arguments.id, job_key(arguments.id)
if not holds_lease(id, arguments.execution) then return 0 end
local queue = queue_of(id)
release_lease(id, queue, arguments.execution, arguments.used_seconds, arguments.energy)
if end_interrupted(id, queue, 'before the job could run', arguments.ttl_seconds) then return 1 end
if arguments.max_device_failures > 0 then
  if redis.call('HGET', key, 'priority') ~= 'training' then redis.call('HSET', key, 'solo', '1') end
  if redis.call('HINCRBY', key, 'device_failures', 1) >= arguments.max_device_failures then
    finish(id, queue, 'failed',
      failure('worker_lost', 'the GPU of every worker that took this job failed while running it', true),
      arguments.ttl_seconds)
    return 1
  end
end
if arguments.needs then redis.call('HSET', key, 'needs', arguments.needs) end
redis.call('HINCRBY', key, 'attempts', -1)
requeue(id, queue)
emit(id, 'queued', { reason = 'released by its worker' })
return 1
