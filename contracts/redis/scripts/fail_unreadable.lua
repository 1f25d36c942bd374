-- Ends a job whose record cannot be read, unless it runs: its worker ends it. Returns whether it has ended by now.
write_even_if_full()
local id, key = arguments.id, job_key(arguments.id)
local job = redis.call('HMGET', key, 'state', 'gone')
if job[2] or redis.call('EXISTS', key) == 0 or RQ_STATUS[job[1]] then return 1 end
if job[1] == 'running' then return 0 end
local queue = queue_of(id)
redis.call('LREM', KEY.rq_queue .. queue, 1, id)
finish(id, queue, 'failed', { error = arguments.error }, arguments.ttl_seconds)
return 1
