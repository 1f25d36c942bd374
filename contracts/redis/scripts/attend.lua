-- Extends the time until which jobs are attended; those that have ended, or are unknown, are left out.
write_even_if_full()
local time = stamp(now() + arguments.seconds)
for _, id in ipairs(arguments.ids) do
  local state = redis.call('HGET', job_key(id), 'state')
  if state == 'queued' or state == 'running' then redis.call('ZADD', KEY.attended, time, id) end
end
