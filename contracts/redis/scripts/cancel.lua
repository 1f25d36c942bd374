-- Cancels a job: a waiting job at once, a running one through a flag that its worker reads.
-- Returns the state before: `queued`, `running`, a final state (nothing changed), or false for an unknown job.
write_even_if_full()
local job = redis.call('HMGET', job_key(arguments.id), 'state')
if job[1] == 'queued' then
  local queue = queue_of(arguments.id)
  redis.call('LREM', KEY.rq_queue .. queue, 1, arguments.id)
  finish(arguments.id, queue, 'cancelled', {}, arguments.ttl_seconds)
elseif job[1] == 'running' then
  redis.call('HSET', job_key(arguments.id), 'cancel_requested', '1')
end
return job[1]
