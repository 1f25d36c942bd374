-- Sets one field of an API key that exists: revoking and using keys must work while Redis is full. Returns 1, or 0.
write_even_if_full()
if redis.call('EXISTS', arguments.key) == 0 then return 0 end
redis.call('HSET', arguments.key, arguments.field, arguments.value)
return 1
