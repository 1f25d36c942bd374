-- Ends a job; returns 1, or 0 and writes nothing where the lease was lost.
-- Returns 1 again to the execution that ended the job, whose first answer was lost.
if redis.call('HGET', job_key(arguments.id), 'ended_by') == arguments.execution then return 1 end
if not holds_lease(arguments.id, arguments.execution) then return 0 end
local queue = redis.call('HGET', job_key(arguments.id), 'queue')
release_lease(arguments.id, queue, arguments.execution)
if arguments.pace then
  -- Smoothed seconds of one step, for the estimates that waiting clients see.
  local before = tonumber(redis.call('HGET', KEY.step_seconds, arguments.pace.key) or arguments.pace.step_seconds)
  redis.call('HSET', KEY.step_seconds, arguments.pace.key, stamp(0.8 * before + 0.2 * arguments.pace.step_seconds))
end
redis.call('HSET', job_key(arguments.id), 'ended_by', arguments.execution)
finish(arguments.id, queue, arguments.state, arguments.fields, arguments.ttl_seconds)
return 1
