-- Returns an owner's webhook secrets, newest first. Creates the first one; with `replace`, a new one, and the former
-- secret, but none before it, stays valid for `overlap_seconds`. The sorted set is scored by expiry.
write_even_if_full()
local key, time = KEY.webhook_secrets .. arguments.owner, now()
redis.call('ZREMRANGEBYSCORE', key, '-inf', stamp(time))
local known = redis.call('ZRANGEBYSCORE', key, '+inf', '+inf')
if arguments.replace and known[1] then
  redis.call('ZREMRANGEBYSCORE', key, '-inf', '(+inf')
  redis.call('ZADD', key, stamp(time + arguments.overlap_seconds), known[1])
  known = {}
end
if not known[1] then redis.call('ZADD', key, '+inf', arguments.fresh) end
return redis.call('ZREVRANGE', key, 0, -1)
