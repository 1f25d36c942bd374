-- Returns expired jobs and leases them to one sweeper; another gets those it has not removed when the lease ends.
write_even_if_full()
local time = now()
local ids = redis.call('ZRANGEBYSCORE', KEY.expiry, '-inf', stamp(time), 'LIMIT', 0, arguments.limit)
for _, id in ipairs(ids) do redis.call('ZADD', KEY.expiry, stamp(time + arguments.lease_seconds), id) end
return ids
