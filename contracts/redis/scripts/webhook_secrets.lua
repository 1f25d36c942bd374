-- The secrets of webhooks, the newest first; makes the first one where there is none, and another where one is to be
-- replaced. What was replaced goes on for a while. They lie in a sorted set, scored with their ends.
local key, time = KEY.webhook_secrets .. arguments.owner, now()
redis.call('ZREMRANGEBYSCORE', key, '-inf', stamp(time))
local known = redis.call('ZRANGEBYSCORE', key, '+inf', '+inf')
if arguments.replace and known[1] then
  redis.call('ZADD', key, stamp(time + arguments.overlap_seconds), known[1])
  known = {}
end
if not known[1] then redis.call('ZADD', key, '+inf', arguments.fresh) end
return redis.call('ZREVRANGE', key, 0, -1)
