-- Requeues jobs whose leases have expired, and fails queued jobs whose deadline has passed. Returns the number of
-- requeued jobs and the ids of those that ended instead: cancelled, past the deadline, or without another attempt.
-- A requeued job runs alone from then on, unless it is a training: it may be what killed its worker.
-- Without `leases`, leases are left alone: their holders may not have had a chance to extend them.
write_even_if_full()
local time, requeued, ended = now(), 0, {}

local expired = arguments.leases
  and redis.call('ZRANGEBYSCORE', KEY.leases, '-inf', stamp(time), 'LIMIT', 0, 100) or {}
for _, id in ipairs(expired) do
  local job = redis.call('HMGET', job_key(id), 'lease', 'attempts', 'model')
  if not job[1] then
    redis.call('ZREM', KEY.leases, id)
  else
    local queue, attempts = queue_of(id), tonumber(job[2] or nil) or 0
    release_lease(id, queue, job[1])
    count('leases_lost', text(job[3]))
    if end_interrupted(id, queue, 'while the job was running', arguments.ttl_seconds) then
      ended[#ended + 1] = id
    elseif attempts >= arguments.max_attempts then
      finish(id, queue, 'failed',
        failure('worker_lost', 'every worker that took this job was lost while running it', true),
        arguments.ttl_seconds)
      ended[#ended + 1] = id
    else
      -- A training, which takes hours, would keep all others from its worker.
      if redis.call('HGET', job_key(id), 'priority') ~= 'training' then redis.call('HSET', job_key(id), 'solo', '1') end
      requeue(id, queue)
      emit(id, 'queued', { reason = 'worker lost', attempts = attempts })
      requeued = requeued + 1
    end
  end
end

-- RQ's entry of a worker that was killed expires, but stays a member of RQ's sets of workers.
local function forget_dead_workers(members)
  for _, entry in ipairs(redis.call('SMEMBERS', members)) do
    if redis.call('EXISTS', entry) == 0 then redis.call('SREM', members, entry) end
  end
end

forget_dead_workers(KEY.rq_workers)
-- A stock RQ worker takes a job, cannot run it, and puts it into RQ's registry of failed jobs for a year. Jobs that
-- failed here are in the same registry, with a score no later than the end of their records.
local latest_score = stamp(time + arguments.ttl_seconds + 1)
for _, rq_queue in ipairs(redis.call('SMEMBERS', KEY.rq_queues)) do
  local queue = string.sub(rq_queue, #KEY.rq_queue + 1)
  forget_dead_workers(KEY.rq_queue_workers .. queue)
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

-- The same of webhook messages: one that waits has the status `queued`. Each is looked at again after a while.
local MESSAGE_SECONDS = 30
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEY.webhook_queued, '-inf', stamp(time - MESSAGE_SECONDS), 'LIMIT', 0, 100)) do
  local message = redis.call('HMGET', rq_key(id), 'status', 'site')
  local queue = webhook_queue(text(message[2]))
  if not message[2] then
    redis.call('ZREM', KEY.webhook_queued, id)
  elseif message[1] == 'queued' then
    redis.call('ZADD', KEY.webhook_queued, stamp(time), id)
  else
    redis.call('ZREM', KEY.rq_failed .. queue, id)
    redis.call('LREM', KEY.rq_queue .. queue, 1, id)
    redis.call('HSET', rq_key(id), 'data', delivery_call(id))  -- which the stock worker has written in another form
    queue_delivery(id, message[2], 'LPUSH')
  end
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEY.deadlines, '-inf', stamp(time), 'LIMIT', 0, 100)) do
  local queue = queue_of(id)
  if redis.call('HGET', job_key(id), 'state') == 'queued' then
    redis.call('LREM', KEY.rq_queue .. queue, 1, id)
    finish(id, queue, 'failed',
      failure('deadline_exceeded', 'the deadline passed while the job waited', true), arguments.ttl_seconds)
  end
  -- A running job's own worker sees its deadline; a job that is requeued gets its row again.
  redis.call('ZREM', KEY.deadlines, id)
end
return { requeued, ended }
