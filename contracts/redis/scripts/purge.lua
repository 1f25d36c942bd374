-- Cancels up to `limit` jobs that wait in a queue, the oldest first. Returns how many, and how many ids are left.
write_even_if_full()
local rq_queue, cancelled = KEY.rq_queue .. arguments.queue, 0
for _, id in ipairs(redis.call('LRANGE', rq_queue, 0, arguments.limit - 1)) do
  if redis.call('HGET', job_key(id), 'state') == 'queued' then
    cancel_job(id, arguments.ttl_seconds)
    cancelled = cancelled + 1
  end
  redis.call('LREM', rq_queue, 1, id)
end
return { cancelled, redis.call('LLEN', rq_queue) }
