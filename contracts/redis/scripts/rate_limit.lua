-- Counts a call of an API key: at most `limit` in any sixty seconds, over all processes. Returns whether it counts,
-- how many more may follow, and milliseconds until one more may. A call that is sent again counts once.
local time, kept = now(), 60
redis.call('ZREMRANGEBYSCORE', arguments.key, '-inf', stamp(time - kept))
local calls = redis.call('ZCARD', arguments.key)
local counts = calls < arguments.limit or redis.call('ZSCORE', arguments.key, arguments.call)
if counts then
  redis.call('ZADD', arguments.key, 'NX', stamp(time), arguments.call)
  redis.call('EXPIRE', arguments.key, kept)
  calls = redis.call('ZCARD', arguments.key)
end
local oldest = redis.call('ZRANGE', arguments.key, 0, 0, 'WITHSCORES')[2]
return { counts and 1 or 0, arguments.limit - calls, math.ceil((tonumber(oldest) + kept - time) * 1000) }
