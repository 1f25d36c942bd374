-- Counts a call with an API key: at most `limit` in any 60 seconds, over all processes. Returns whether the call is
-- allowed (1 or 0), how many remain, and the milliseconds until the oldest call stops counting. A repeated call counts
-- once.
write_even_if_full()
local time, window_seconds = now(), 60
redis.call('ZREMRANGEBYSCORE', arguments.key, '-inf', stamp(time - window_seconds))
local calls = redis.call('ZCARD', arguments.key)
local allowed = calls < arguments.limit or redis.call('ZSCORE', arguments.key, arguments.call)
if allowed then
  redis.call('ZADD', arguments.key, 'NX', stamp(time), arguments.call)
  redis.call('EXPIRE', arguments.key, window_seconds)
  calls = redis.call('ZCARD', arguments.key)
end
local oldest = redis.call('ZRANGE', arguments.key, 0, 0, 'WITHSCORES')[2]
return { allowed and 1 or 0, arguments.limit - calls, math.ceil((tonumber(oldest) + window_seconds - time) * 1000) }
