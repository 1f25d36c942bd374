-- Returns the number of jobs by state, model and task; the tier, model, length and age in seconds of each queue; and
-- the number of webhook messages that are waiting, being delivered, or to be retried.
local time, queues = now(), {}
for _, tier in ipairs(TIERS) do
  for _, queue in ipairs(redis.call('SMEMBERS', KEY.waiting .. tier)) do
    local first = redis.call('LINDEX', KEY.rq_queue .. queue, 0)
    local job = first and redis.call('HMGET', job_key(first), 'model', 'created_at')
    if job and job[1] then
      local since = tonumber(job[2] or nil) or time
      queues[#queues + 1] = { tier, job[1], redis.call('LLEN', KEY.rq_queue .. queue), stamp(time - since) }
    end
  end
end
local messages = redis.call('ZCARD', KEY.webhook_leases) + redis.call('ZCARD', KEY.webhook_retries)
for _, site in ipairs(redis.call('ZRANGE', KEY.site_turns, 0, -1)) do
  messages = messages + redis.call('LLEN', KEY.rq_queue .. webhook_queue(site))
end
return { redis.call('HGETALL', KEY.job_counts), queues, messages }
