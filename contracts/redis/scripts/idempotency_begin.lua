-- Takes an idempotency key for one call, for as long as its acceptance may take.
-- Returns `held`, or what else the key is: `other` (another call's), `busy` (this call's, being accepted elsewhere),
-- or the id of what this call made.
local found = redis.call('HMGET', arguments.key, 'fingerprint', 'made', 'token')
if found[1] and found[1] ~= arguments.fingerprint then return { 'other' } end
if found[2] then return { 'made', found[2] } end
if found[1] and found[3] ~= arguments.token then return { 'busy' } end  -- ours: the first answer was lost
redis.call('HSET', arguments.key, 'fingerprint', arguments.fingerprint, 'token', arguments.token)
redis.call('PEXPIRE', arguments.key, arguments.lease_milliseconds)
return { 'held' }
