-- Binds an idempotency key to what its call has made, where that is no job (`submit.lua` binds those).
-- Returns 1, or 0 where another call has the key by now.
local once = arguments.once
local found = redis.call('HMGET', once.key, 'token', 'made')
if found[1] == once.token and found[2] == arguments.made then return 1 end  -- the first answer was lost
if found[2] or (found[1] and found[1] ~= once.token) then return 0 end
redis.call('HSET', once.key, 'fingerprint', once.fingerprint, 'token', once.token, 'made', arguments.made)
redis.call('EXPIRE', once.key, once.kept_seconds)
return 1
