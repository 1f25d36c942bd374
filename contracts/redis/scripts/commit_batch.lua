-- Stores what a round has done for a batch, and extends its lease. Returns 1; 0, without changing anything, where
-- another process has the lease. A status is stored only where nobody has cancelled the batch in the meantime.
write_even_if_full()
local id, key = arguments.id, KEY.batch .. arguments.id
if redis.call('HGET', key, 'lease') ~= arguments.token then return 0 end
local is_cancelling = redis.call('HGET', key, 'status') == 'cancelling'
for name, value in pairs(arguments.fields) do
  if not (is_cancelling and (name == 'status' or name == 'outcome')) then redis.call('HSET', key, name, value) end
end
local status = arguments.fields.status
if status and not is_cancelling then redis.call('HSET', key, status .. '_at', stamp(now())) end
for number, line in pairs(arguments.started) do redis.call('HSET', KEY.batch_lines .. id, number, line) end
for _, number in ipairs(arguments.ended) do redis.call('HDEL', KEY.batch_lines .. id, number) end
redis.call('HINCRBY', key, 'completed', arguments.completed)
redis.call('HINCRBY', key, 'failed', arguments.failed)
for _, part in ipairs(arguments.parts) do redis.call('RPUSH', KEY.batch_parts .. id, part) end
if #arguments.parts > 0 then redis.call('HINCRBY', key, 'parts', 1) end
redis.call('ZADD', KEY.batches, 'XX', stamp(now() + arguments.lease_seconds), id)
return 1
