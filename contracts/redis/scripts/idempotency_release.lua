-- Releases the idempotency key of a failed call, so that the call can be repeated.
local found = redis.call('HMGET', arguments.key, 'token', 'made')
if found[1] == arguments.token and not found[2] then redis.call('DEL', arguments.key) end
return 1
