-- Stores in an idempotency key what its call created (for jobs, `submit.lua` does it).
-- Returns 1; 0 if another call has taken the key.
local idempotency = arguments.idempotency
local found = redis.call('HMGET', idempotency.key, 'token', 'made')
if found[1] == idempotency.token and found[2] == arguments.made then return 1 end  -- the first answer was lost
if found[2] or (found[1] and found[1] ~= idempotency.token) then return 0 end
redis.call('HSET', idempotency.key, 'fingerprint', idempotency.fingerprint, 'token', idempotency.token,
           'made', arguments.made)
redis.call('EXPIRE', idempotency.key, idempotency.ttl_seconds)
return 1
