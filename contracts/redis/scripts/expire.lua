-- Removes a finished job that has expired or that its owner deletes, and leaves a tombstone for some time. Removes a
-- tombstone whose time is over. Returns the state before, `gone` for a tombstone, false for an unknown job.
write_even_if_full()
local id, key = arguments.id, job_key(arguments.id)
local job = redis.call('HMGET', key, 'state', 'owner', 'expires_at', 'gone', 'inputs')
local state, owner, queue = job[1], text(job[2]), queue_of(id)
if not state then
  if not arguments.deleted then
    redis.call('DEL', key)
    redis.call('ZREM', KEY.expiry, id)
  end
  return job[4] and 'gone'
end
local rq_status = RQ_STATUS[state]
if not rq_status or not (arguments.deleted or (tonumber(job[3] or nil) or 0) <= now()) then return state end

-- Messages that are not delivered yet take over what they have read from the record so far.
for message in pairs(decode(redis.call('HGET', key, 'deliveries'), {})) do
  if redis.call('HEXISTS', rq_key(message), 'record') == 1 then
    for _, name in ipairs(CONSTANT_FIELDS) do
      local value = redis.call('HGET', key, name)
      if value then redis.call('HSET', rq_key(message), name, value) end
    end
  end
end
for _, input in ipairs(strings(job[5], {})) do release_input(input) end
release_checkpoint(id)
enter(id, nil)
set_record_bytes(id, owner, 0)
redis.call('DEL', key, rq_key(id), KEY.events .. id)
redis.call('ZREM', KEY['rq_' .. rq_status] .. queue, id)
redis.call('ZREM', KEY.owner_jobs .. owner, id)
redis.call('ZREM', KEY.all_jobs, id)
set_stored(owner, 'job:' .. id, 0)
redis.call('HSET', key, 'owner', owner, 'gone', arguments.deleted and 'deleted' or 'expired')
publish(id, 'gone')
-- Files are removed again when the tombstone expires: a suspended worker may have written some in the meantime.
redis.call('ZADD', KEY.expiry, stamp(now() + arguments.tombstone_seconds), id)
return state
