-- Leases an idempotency key. Returns `held`, `other` (it was used for a different call), `busy` (the same call is in
-- progress), or `made` and the id of what the same call created. `even_if_full`: the call frees something.
if arguments.even_if_full then write_even_if_full() end
local found = redis.call('HMGET', arguments.key, 'fingerprint', 'made', 'token')
if found[1] and found[1] ~= arguments.fingerprint then return { 'other' } end
if found[2] then return { 'made', found[2] } end
if found[1] and found[3] ~= arguments.token then return { 'busy' } end  -- the same token: our first answer was lost
redis.call('HSET', arguments.key, 'fingerprint', arguments.fingerprint, 'token', arguments.token)
redis.call('PEXPIRE', arguments.key, arguments.lease_milliseconds)
return { 'held' }
