-- Removes an ended job that has expired or that its owner deletes, and leaves a tombstone for a while. A tombstone
-- that is due is removed too. Returns the state found, `gone` for a tombstone, false for an unknown job.
local id, key = arguments.id, job_key(arguments.id)
local job = redis.call('HMGET', key, 'state', 'owner', 'queue', 'expires_at', 'gone', 'inputs')
local state, owner, queue = job[1], job[2], job[3]
if not state then
  if not arguments.deleted then
    redis.call('DEL', key)
    redis.call('ZREM', KEY.expiry, id)
  end
  return job[5] and 'gone'
end
local ended = RQ_STATUS[state]
if not ended or not (arguments.deleted or tonumber(job[4]) <= now()) then return state end

for _, input in ipairs(cjson.decode(job[6] or '[]')) do let_go(input) end
enter(id, nil)
redis.call('DEL', key, rq_key(id), KEY.events .. id)
redis.call('ZREM', KEY['rq_' .. ended] .. queue, id)
redis.call('ZREM', KEY.owner_jobs .. owner, id)
redis.call('HSET', key, 'owner', owner, 'gone', arguments.deleted and 'deleted' or 'expired')
ring(id, 'gone')
-- Its files are looked for once more at the stone's end: a worker that stood still may have written some meanwhile.
redis.call('ZADD', KEY.expiry, stamp(now() + arguments.tombstone_seconds), id)
return state
