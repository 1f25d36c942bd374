-- Sets one field of a hash that exists, also while Redis is full: of an API key that is revoked or used, of a process's
-- entry. Returns 1, or 0.
write_even_if_full()
if redis.call('EXISTS', arguments.key) == 0 then return 0 end
redis.call('HSET', arguments.key, arguments.field, arguments.value)
return 1
