-- Frees an idempotency key whose call failed, so that the call may be sent again.
local found = redis.call('HMGET', arguments.key, 'token', 'made')
if found[1] == arguments.token and not found[2] then redis.call('DEL', arguments.key) end
return 1
