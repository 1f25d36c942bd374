-- Ends a job if the execution still holds its lease; returns 1, or 0 and writes nothing.
if not holds_lease(arguments.id, arguments.execution) then return 0 end
local queue = redis.call('HGET', job_key(arguments.id), 'queue')
release_lease(arguments.id, queue, arguments.execution)
finish(arguments.id, queue, arguments.state, arguments.fields, arguments.ttl_seconds)
return 1
