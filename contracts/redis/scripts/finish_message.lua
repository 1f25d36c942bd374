-- Ends an attempt to deliver a message. Returns 1; 0, without writing anything, if the lease was lost.
-- `next`: `again` (retry after `pause_seconds`), `back` (to the front of its queue, not counted as an attempt),
-- `delivered` or `given_up` (both remove the message). `shown` is what the job's view shows of the attempt.
write_even_if_full()
local id = arguments.id
local found = redis.call('HMGET', rq_key(id), 'lease', 'site', 'job')
if found[1] ~= arguments.execution then return 0 end
local site = text(found[2])
local queue = webhook_queue(site)
redis.call('ZREM', KEY.webhook_leases, id)
redis.call('ZREM', KEY.rq_started .. queue, id .. ':' .. arguments.execution)
redis.call('HDEL', rq_key(id), 'lease')
if arguments.next == 'back' then
  queue_delivery(id, site, 'LPUSH')
  return 1
end

local shown = arguments.shown
shown.attempts = redis.call('HINCRBY', rq_key(id), 'attempts', 1)
if arguments.next == 'again' then
  local due = stamp(now() + arguments.pause_seconds)
  redis.call('ZADD', KEY.webhook_retries, due, id)
  redis.call('ZADD', KEY.rq_scheduled .. queue, math.floor(due), id)
  redis.call('HSET', rq_key(id), 'status', 'scheduled')
else
  shown.status = arguments.next
  redis.call('DEL', rq_key(id))
end
show_delivery(id, text(found[3]), shown)
return 1
