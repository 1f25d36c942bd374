-- Counts one call of a key: at most `limit` in any sixty seconds, whichever processes take them.
-- Returns whether it counts, how many more may follow now, and the milliseconds until one more may.
-- Said twice (its first answer was lost), it counts once.
local time, kept = now(), 60
redis.call('ZREMRANGEBYSCORE', arguments.rate, '-inf', stamp(time - kept))
local calls = redis.call('ZCARD', arguments.rate)
local counts = calls < arguments.limit or redis.call('ZSCORE', arguments.rate, arguments.call)
if counts then
  redis.call('ZADD', arguments.rate, 'NX', stamp(time), arguments.call)
  redis.call('EXPIRE', arguments.rate, kept)
  calls = redis.call('ZCARD', arguments.rate)
end
local oldest = redis.call('ZRANGE', arguments.rate, 0, 0, 'WITHSCORES')[2]
return { counts and 1 or 0, arguments.limit - calls, math.ceil((tonumber(oldest) + kept - time) * 1000) }
