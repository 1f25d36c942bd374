-- Returns the storage keys of unused inputs and leases them to one sweeper; if it has not removed them when the lease
-- ends, another sweeper gets them. New jobs cannot use these keys: the same content gets a new key, so a sweeper that
-- was suspended cannot remove a file that is needed.
write_even_if_full()
local time = now()
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEY.inputs, '-inf', stamp(time), 'LIMIT', 0, arguments.limit)) do
  redis.call('ZREM', KEY.inputs, key)
  if redis.call('HEXISTS', KEY.input_holders, key) == 0 then
    redis.call('DEL', KEY.input .. text(sha256_of(key)))
    redis.call('ZADD', KEY.garbage, stamp(time), key)
  end
end
local keys = redis.call('ZRANGEBYSCORE', KEY.garbage, '-inf', stamp(time), 'LIMIT', 0, arguments.limit)
for _, key in ipairs(keys) do redis.call('ZADD', KEY.garbage, stamp(time + arguments.lease_seconds), key) end
return keys
