-- Leases the batch whose next round is due to one process; returns its id, or false where none is due.
write_even_if_full()
local time = now()
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEY.batches, '-inf', stamp(time), 'LIMIT', 0, 10)) do
  if redis.call('EXISTS', KEY.batch .. id) == 1 then
    redis.call('ZADD', KEY.batches, stamp(time + arguments.lease_seconds), id)
    redis.call('HSET', KEY.batch .. id, 'lease', arguments.token)
    return id
  end
  redis.call('ZREM', KEY.batches, id)
end
return false
