-- Takes the next message for a dispatcher, under a lease. Receivers take turns; those in `full` have as many messages
-- under way here as they may. Before that, what a silent dispatcher held goes back in front of its queue, and what
-- is due again goes to the end of its own. Returns the id and what the message is, or what was found instead of a
-- message, or nothing.
local time = stamp(now())

local function put_back(index, registry, push)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', time, 'LIMIT', 0, 100)) do
    local found = redis.call('HMGET', rq_key(id), 'site', 'lease')
    redis.call('ZREM', index, id)
    if found[1] then
      redis.call('ZREM', registry .. webhook_queue(found[1]), found[2] and id .. ':' .. found[2] or id)
      redis.call('HDEL', rq_key(id), 'lease')
      queue_delivery(id, found[1], push)
    end
  end
end

put_back(KEY.webhook_leases, KEY.rq_started, 'LPUSH')
put_back(KEY.webhook_retries, KEY.rq_scheduled, 'RPUSH')

-- How earlier releases queued a message.
local FORMER_DELIVERY_CALL = '["dispatcher.deliveries.deliver",null,["'

local function take(site)
  local queue = webhook_queue(site)
  local id = redis.call('LPOP', KEY.rq_queue .. queue)
  if redis.call('EXISTS', KEY.rq_queue .. queue) == 1 then
    redis.call('ZADD', KEY.site_turns, redis.call('INCR', KEY.site_turn), site)
  else
    redis.call('ZREM', KEY.site_turns, site)
    redis.call('SREM', KEY.rq_queues, KEY.rq_queue .. queue)
  end
  if not id then return {} end
  local call = redis.call('HGET', rq_key(id), 'data')
  if call ~= delivery_call(id) and call ~= FORMER_DELIVERY_CALL .. id .. '"],{}]' then
    redis.call('HSET', rq_key(id), 'status', 'failed')
    return { 'foreign', id }
  end
  redis.call('ZADD', KEY.webhook_leases, stamp(now() + arguments.lease_seconds), id)
  -- Scored +inf: RQ's own clean-up must never judge our leases.
  redis.call('ZADD', KEY.rq_started .. queue, '+inf', id .. ':' .. arguments.execution)
  redis.call('HSET', rq_key(id), 'status', 'started', 'worker_name', arguments.worker,
             'lease', arguments.execution)
  return { 'taken', id, unpack(redis.call('HMGET', rq_key(id), 'event', 'site', 'attempts', 'record')) }
end

local full = {}
for _, site in ipairs(arguments.full) do full[site] = true end
for _, site in ipairs(redis.call('ZRANGE', KEY.site_turns, 0, #arguments.full)) do
  if not full[site] then return take(site) end
end
return {}
