-- Finds inputs that nobody holds any more, and lends their files to one sweeper; another sees them when this one has
-- not removed them in time. From here on no job can name them: the same content again gets a key of its own, so
-- that a sweeper that stood still removes nothing that is needed.
local time = now()
for _, key in ipairs(redis.call('ZRANGEBYSCORE', 'darkroom:inputs', '-inf', stamp(time), 'LIMIT', 0, arguments.limit)) do
  redis.call('ZREM', 'darkroom:inputs', key)
  if redis.call('HEXISTS', 'darkroom:holders', key) == 0 then
    redis.call('DEL', 'darkroom:input:' .. sha256_of(key))
    redis.call('ZADD', 'darkroom:rubbish', stamp(time), key)
  end
end
local keys = redis.call('ZRANGEBYSCORE', 'darkroom:rubbish', '-inf', stamp(time), 'LIMIT', 0, arguments.limit)
for _, key in ipairs(keys) do redis.call('ZADD', 'darkroom:rubbish', stamp(time + arguments.lease_seconds), key) end
return keys
