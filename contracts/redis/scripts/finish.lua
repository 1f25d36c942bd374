-- Ends a job. Returns 1; 0, without writing anything, if the lease was lost.
-- An execution that repeats the call, because the first answer did not arrive, gets 1 again.
if redis.call('HGET', job_key(arguments.id), 'ended_by') == arguments.execution then return 1 end
if not holds_lease(arguments.id, arguments.execution) then return 0 end
local queue = redis.call('HGET', job_key(arguments.id), 'queue')
release_lease(arguments.id, queue, arguments.execution)
if arguments.measured then learn_pace(arguments.measured.work, arguments.measured.seconds) end
redis.call('HSET', job_key(arguments.id), 'ended_by', arguments.execution)
finish(arguments.id, queue, arguments.state, arguments.fields, arguments.ttl_seconds)
return 1
