-- Takes an idempotency key under a lease. Returns `held`; or `other` (used for a different call), `busy` (the same
-- call is being accepted), or `made` and the id of what the same call made.
local found = redis.call('HMGET', arguments.key, 'fingerprint', 'made', 'token')
if found[1] and found[1] ~= arguments.fingerprint then return { 'other' } end
if found[2] then return { 'made', found[2] } end
if found[1] and found[3] ~= arguments.token then return { 'busy' } end  -- ours: the first answer was lost
redis.call('HSET', arguments.key, 'fingerprint', arguments.fingerprint, 'token', arguments.token)
redis.call('PEXPIRE', arguments.key, arguments.lease_milliseconds)
return { 'held' }
