-- Writes a worker's report, which expires after `ttl_seconds`, and its row among the workers. Rows of workers that have
-- been silent for an hour are removed.
write_even_if_full()
local time = now()
redis.call('SET', KEY.worker .. arguments.id, arguments.report, 'EX', arguments.ttl_seconds)
redis.call('ZADD', KEY.workers, stamp(time), arguments.id)
redis.call('ZREMRANGEBYSCORE', KEY.workers, '-inf', stamp(time - 3600))
return 1
