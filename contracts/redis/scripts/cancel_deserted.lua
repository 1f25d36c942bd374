-- Cancels the jobs that nobody has attended for long enough; returns their ids.
-- A job whose time passed more than `unwatched_seconds` ago was not looked for then: it gets `grace_seconds` more.
write_even_if_full()
local time, cancelled = now(), {}
local due = redis.call('ZRANGEBYSCORE', KEY.attended, '-inf', stamp(time), 'WITHSCORES', 'LIMIT', 0, 100)
for index = 1, #due, 2 do
  local id, passed = due[index], tonumber(due[index + 1])
  if time - passed > arguments.unwatched_seconds then
    redis.call('ZADD', KEY.attended, stamp(time + arguments.grace_seconds), id)
  else
    redis.call('ZREM', KEY.attended, id)
    cancel_job(id, arguments.ttl_seconds)
    cancelled[#cancelled + 1] = id
  end
end
return cancelled
