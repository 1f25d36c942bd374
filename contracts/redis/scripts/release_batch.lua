-- Ends a round of a batch: the next is due after a pause. Does nothing where another process has the lease.
write_even_if_full()
local key = KEY.batch .. arguments.id
if redis.call('HGET', key, 'lease') ~= arguments.token then return 0 end
redis.call('HDEL', key, 'lease')
redis.call('ZADD', KEY.batches, 'XX', stamp(now() + arguments.pause_seconds), arguments.id)
return 1
