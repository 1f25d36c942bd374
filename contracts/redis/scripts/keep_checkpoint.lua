-- Has a running training hold its newest checkpoint, a file that is retained and written, in place of the one before it.
-- Returns 1; 0 if the lease was lost, or if the file was swept meanwhile.
write_even_if_full()
local id, key = arguments.id, job_key(arguments.id)
local input = arguments.checkpoint.key
if not holds_lease(id, arguments.execution) then return 0 end
if redis.call('GET', KEY.input .. text(sha256_of(input))) ~= input then return 0 end
redis.call('HINCRBY', KEY.input_holders, input, 1)
release_checkpoint(id)
redis.call('HSET', key, 'checkpoint', cjson.encode(arguments.checkpoint))
return 1
