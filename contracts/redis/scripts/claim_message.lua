-- Leases the next message to a dispatcher. Receivers take turns; those in `full` are at their maximum of concurrent
-- deliveries and are skipped. First, messages whose lease has expired return to the front of their queues, and messages
-- whose retry is due to the end. Returns `taken`, the id and the message; `foreign` and the id of a job that is not a
-- message; or nothing.
write_even_if_full()
local time = stamp(now())

local function put_back(index, registry, push)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', time, 'LIMIT', 0, 100)) do
    local message = redis.call('HMGET', rq_key(id), 'site', 'lease')
    redis.call('ZREM', index, id)
    if message[1] then
      redis.call('ZREM', registry .. webhook_queue(message[1]), message[2] and id .. ':' .. message[2] or id)
      redis.call('HDEL', rq_key(id), 'lease')
      queue_delivery(id, message[1], push)
    end
  end
end

put_back(KEY.webhook_leases, KEY.rq_started, 'LPUSH')
put_back(KEY.webhook_retries, KEY.rq_scheduled, 'RPUSH')

-- The call with which earlier releases queued a message.
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
  redis.call('ZREM', KEY.webhook_queued, id)
  local call = redis.call('HGET', rq_key(id), 'data')
  if call ~= delivery_call(id) and call ~= FORMER_DELIVERY_CALL .. id .. '"],{}]' then
    redis.call('HSET', rq_key(id), 'status', 'failed')
    return { 'foreign', id }
  end
  redis.call('ZADD', KEY.webhook_leases, stamp(now() + arguments.lease_seconds), id)
  -- Scored +inf, so that RQ's own clean-up never touches our leases.
  redis.call('ZADD', KEY.rq_started .. queue, '+inf', id .. ':' .. arguments.execution)
  redis.call('HSET', rq_key(id), 'status', 'started', 'worker_name', arguments.worker,
             'lease', arguments.execution)
  local message = redis.call('HMGET', rq_key(id), 'event', 'attempts', 'sequence', 'record', 'job')
  -- What the message has no copy of comes from the job, or from the message once the job's record is removed.
  local constants = {}
  for _, name in ipairs(CONSTANT_FIELDS) do
    constants[name] = redis.call('HGET', rq_key(id), name) or redis.call('HGET', job_key(text(message[5])), name) or nil
  end
  return { 'taken', id, text(message[1]), site, message[2] or '0', message[3] or '0', message[4] or '{}',
           cjson.encode(constants) }
end

local full = {}
for _, site in ipairs(arguments.full) do full[site] = true end
for _, site in ipairs(redis.call('ZRANGE', KEY.site_turns, 0, #arguments.full)) do
  if not full[site] then return take(site) end
end
return {}
