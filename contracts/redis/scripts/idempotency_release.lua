-- Gives an idempotency key up whose call was refused, so that it may be sent again, corrected.
local found = redis.call('HMGET', arguments.key, 'token', 'made')
if found[1] == arguments.token and not found[2] then redis.call('DEL', arguments.key) end
return 1
