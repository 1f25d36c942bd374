-- Stores in an idempotency key what its call created (for jobs, `submit.lua` does it).
-- Returns 1; 0 if another call has taken the key. An owner has `max_keys` of these at one time: beyond that the oldest
-- are forgotten. (Those of jobs are as many as the jobs.) `even_if_full`: the call frees something.
if arguments.even_if_full then write_even_if_full() end
local idempotency = arguments.idempotency
local found = redis.call('HMGET', idempotency.key, 'token', 'made')
if found[1] == idempotency.token and found[2] == arguments.made then return 1 end  -- the first answer was lost
if found[2] or (found[1] and found[1] ~= idempotency.token) then return 0 end
redis.call('HSET', idempotency.key, 'fingerprint', idempotency.fingerprint, 'token', idempotency.token,
           'made', arguments.made)
redis.call('EXPIRE', idempotency.key, idempotency.ttl_seconds)
local index, time = idempotency.index, now()
redis.call('ZREMRANGEBYSCORE', index, '-inf', stamp(time))
redis.call('ZADD', index, stamp(time + idempotency.ttl_seconds), idempotency.key)
redis.call('EXPIRE', index, idempotency.ttl_seconds)
local excess = redis.call('ZRANGE', index, 0, -arguments.max_keys - 1)
for _, key in ipairs(excess) do
  redis.call('DEL', key)
  redis.call('ZREM', index, key)
end
return 1
