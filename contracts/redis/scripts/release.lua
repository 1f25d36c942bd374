-- Puts a job back at the front of its queue without counting the attempt; returns 1, or 0 where the lease was lost.
if not holds_lease(arguments.id, arguments.execution) then return 0 end
local queue = redis.call('HGET', job_key(arguments.id), 'queue')
release_lease(arguments.id, queue, arguments.execution)
redis.call('HINCRBY', job_key(arguments.id), 'attempts', -1)
requeue(arguments.id, queue)
emit(arguments.id, 'queued', { reason = 'handed back' })
return 1
