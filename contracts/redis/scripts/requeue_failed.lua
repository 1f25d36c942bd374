-- Puts a failed job back into its queue, with all attempts and without its deadline, which may have passed. Its inputs
-- are there as long as its record. Returns the state before, and changes nothing unless that is `failed`; false for a
-- job that is unknown or has expired.
local id, key = arguments.id, job_key(arguments.id)
local job = redis.call('HMGET', key, 'state', 'expires_at', 'owner')
local state, owner = job[1], text(job[3])
if not state or (tonumber(job[2] or nil) or math.huge) <= now() then return false end
if state ~= 'failed' then return state end
local queue = queue_of(id)
redis.call('HDEL', key, 'error', 'started_at', 'finished_at', 'expires_at', 'deadline_at', 'ended_by', 'cancel_requested',
           'attempts', 'device_failures', 'released', 'worker', 'preparing', 'retrying_since')
redis.call('ZREM', KEY.expiry, id)
redis.call('ZREM', KEY.rq_failed .. queue, id)
set_stored(owner, 'job:' .. id, arguments.result_bytes)
requeue(id, queue)
emit(id, 'queued', { reason = 'requeued by the operator' })
measure_records(id, owner)
return state
