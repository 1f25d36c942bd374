-- Accepts a job: our record, RQ's job, its place in the queue and in its owner's index, the event; all or nothing.
-- ARGV[2] is RQ's call, which is no text. Said twice (its first answer was lost), it is done once.
-- Returns when it was accepted.
local id, key = arguments.id, job_key(arguments.id)
local before = redis.call('HGET', key, 'created_at')
if before then return before end

local function flatten(fields)
  local flat = {}
  for name, value in pairs(fields) do
    flat[#flat + 1] = name
    flat[#flat + 1] = value
  end
  return flat
end

local accepted, queue = now(), arguments.fields.queue
redis.call('HSET', key, 'created_at', stamp(accepted), unpack(flatten(arguments.fields)))
redis.call('HSET', rq_key(id), 'data', ARGV[2], unpack(flatten(arguments.rq)))
redis.call('SADD', 'rq:queues', 'rq:queue:' .. queue)
redis.call('RPUSH', 'rq:queue:' .. queue, id)
redis.call('SADD', 'darkroom:waiting:' .. arguments.fields.priority, queue)
redis.call('ZADD', 'darkroom:jobs:' .. arguments.fields.owner, stamp(accepted), id)
if arguments.deadline_seconds then
  local deadline = stamp(accepted + arguments.deadline_seconds)
  redis.call('HSET', key, 'deadline_at', deadline)
  redis.call('ZADD', 'darkroom:deadlines', deadline, id)
end
emit(id, 'queued', { at = accepted })
return stamp(accepted)
