-- Returns expired jobs and lends them to one sweeper; others see them again if it has not removed them in time.
local time = now()
local ids = redis.call('ZRANGEBYSCORE', KEY.expiry, '-inf', stamp(time), 'LIMIT', 0, arguments.limit)
for _, id in ipairs(ids) do redis.call('ZADD', KEY.expiry, stamp(time + arguments.lease_seconds), id) end
return ids
