-- Moves a waiting job to the end of its owner's queue of another priority. Returns the state before, and changes nothing
-- unless that is `queued`; false for an unknown job.
write_even_if_full()
local id, key = arguments.id, job_key(arguments.id)
local found = redis.call('HMGET', key, 'state', 'model', 'task', 'owner', 'priority')
local job = { model = text(found[2]), task = text(found[3]), owner = text(found[4]), priority = text(found[5]) }
if found[1] ~= 'queued' or job.priority == arguments.priority then return found[1] end
redis.call('LREM', KEY.rq_queue .. queue_of(id), 1, id)
count_job('queued', job, -1)
job.priority = arguments.priority
redis.call('HSET', key, 'priority', job.priority, 'queue', arguments.queue)
redis.call('HSET', rq_key(id), 'origin', arguments.queue)
count_job('queued', job, 1)
drop_idle_accounts()
redis.call('SADD', KEY.rq_queues, KEY.rq_queue .. arguments.queue)
redis.call('RPUSH', KEY.rq_queue .. arguments.queue, id)
redis.call('SADD', KEY.waiting .. job.priority, arguments.queue)
emit(id, 'queued', { reason = 'priority changed by the operator' })
return 'queued'
