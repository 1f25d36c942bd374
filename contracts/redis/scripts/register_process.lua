-- Writes a process's entry among RQ's workers, in sets that RQ's tools read. Returns 1; 0, without changing anything, if
-- there is an entry of this name. A process must be able to start while Redis is full: it is what frees memory.
write_even_if_full()
local entry = arguments.entry
local found = redis.call('HMGET', entry, 'birth', 'death')
if found[1] and not found[2] then return 0 end
-- What is left is a dead process's, or a state that was written after the entry had expired, and would never expire.
redis.call('DEL', entry)
for name, value in pairs(arguments.fields) do redis.call('HSET', entry, name, value) end
redis.call('EXPIRE', entry, arguments.ttl_seconds)
redis.call('SADD', KEY.rq_queues, KEY.rq_queue .. arguments.queue)
redis.call('SADD', KEY.rq_workers, entry)
redis.call('SADD', KEY.rq_queue_workers .. arguments.queue, entry)
return 1
