-- Cancels a job: a waiting job at once, a running one through a flag that its worker reads.
-- Returns the state before: `queued`, `running`, a final state (nothing changed), or false for an unknown job.
local job = redis.call('HMGET', job_key(arguments.id), 'state', 'queue')
if job[1] == 'queued' then
  redis.call('LREM', KEY.rq_queue .. job[2], 1, arguments.id)
  finish(arguments.id, job[2], 'cancelled', {}, arguments.ttl_seconds)
elseif job[1] == 'running' then
  redis.call('HSET', job_key(arguments.id), 'cancel_requested', '1')
end
return job[1]
