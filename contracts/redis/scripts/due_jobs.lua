-- Ids whose time has come, lent to one sweeper: another sees them only when this one has not buried them in time.
local time = now()
local ids = redis.call('ZRANGEBYSCORE', KEY.expiry, '-inf', stamp(time), 'LIMIT', 0, arguments.limit)
for _, id in ipairs(ids) do redis.call('ZADD', KEY.expiry, stamp(time + arguments.lease_seconds), id) end
return ids
