-- Ends a job. Returns 1; 0, without writing anything, if the lease was lost.
-- An execution that repeats the call, because the first answer did not arrive, gets 1 again.
if redis.call('HGET', job_key(arguments.id), 'ended_by') == arguments.execution then return 1 end
if not holds_lease(arguments.id, arguments.execution) then return 0 end
local queue = redis.call('HGET', job_key(arguments.id), 'queue')
release_lease(arguments.id, queue, arguments.execution)
if arguments.pace then
  -- Moving average of the seconds per step, for the waiting times that clients see.
  local before = tonumber(redis.call('HGET', KEY.step_seconds, arguments.pace.key) or arguments.pace.step_seconds)
  redis.call('HSET', KEY.step_seconds, arguments.pace.key, stamp(0.8 * before + 0.2 * arguments.pace.step_seconds))
end
redis.call('HSET', job_key(arguments.id), 'ended_by', arguments.execution)
finish(arguments.id, queue, arguments.state, arguments.fields, arguments.ttl_seconds)
return 1
