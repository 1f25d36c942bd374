-- Takes back what expired leases held, ends queued jobs whose deadline has passed, prunes the registries.
-- A job that was running when its worker fell silent runs alone from now on: it may be what killed it.
local time, requeued, lost = now(), 0, {}

for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEY.leases, '-inf', stamp(time), 'LIMIT', 0, 100)) do
  local job = redis.call('HMGET', job_key(id), 'queue', 'lease', 'attempts', 'cancel_requested', 'model')
  if not job[2] then
    redis.call('ZREM', KEY.leases, id)
  else
    release_lease(id, job[1], job[2])
    count('leases_lost', job[5])
    if job[4] then
      finish(id, job[1], 'cancelled', {}, arguments.ttl_seconds)
    elseif tonumber(job[3]) >= arguments.max_attempts then
      finish(id, job[1], 'failed',
        failure('worker_lost', 'every worker that took this job was lost while running it', true),
        arguments.ttl_seconds)
      lost[#lost + 1] = id
    else
      redis.call('HSET', job_key(id), 'solo', '1')
      requeue(id, job[1])
      emit(id, 'queued', { reason = 'worker lost', attempts = tonumber(job[3]) })
      requeued = requeued + 1
    end
  end
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEY.deadlines, '-inf', stamp(time), 'LIMIT', 0, 100)) do
  local job = redis.call('HMGET', job_key(id), 'state', 'queue')
  if job[1] == 'queued' then
    redis.call('LREM', KEY.rq_queue .. job[2], 1, id)
    finish(id, job[2], 'failed',
      failure('deadline_exceeded', 'the deadline passed while the job waited', true), arguments.ttl_seconds)
  end
  -- A running job's own worker sees its deadline at the next step.
  redis.call('ZREM', KEY.deadlines, id)
end
return { requeued, lost }
