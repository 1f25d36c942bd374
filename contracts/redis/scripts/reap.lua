-- Requeues jobs whose leases have expired, and fails queued jobs whose deadline has passed. Returns the number of
-- requeued jobs and the ids of those that failed because no attempt is left.
-- A requeued job runs alone from then on: it may be what killed its worker.
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

-- A stock RQ worker takes a job, cannot run it, and puts it into RQ's registry of failed jobs for a year. Jobs that
-- failed here are in the same registry, with a score no later than the end of their records.
local latest_score = stamp(time + arguments.ttl_seconds + 1)
for _, rq_queue in ipairs(redis.call('SMEMBERS', KEY.rq_queues)) do
  local queue = string.sub(rq_queue, #KEY.rq_queue + 1)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEY.rq_failed .. queue, latest_score, '+inf', 'LIMIT', 0, 100)) do
    if redis.call('HGET', job_key(id), 'state') == 'queued' then
      redis.call('ZREM', KEY.rq_failed .. queue, id)
      redis.call('LREM', KEY.rq_queue .. queue, 1, id)
      requeue(id, queue)
      emit(id, 'queued', { reason = 'taken by a stock rq worker' })
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
