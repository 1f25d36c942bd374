-- Enters a LoRA into a registry under a free name, and holds its file. Returns `kept`; or, without doing anything,
-- the row that has the name, `swept` where the file is gone, `full` where the registry is.
local known = redis.call('HGET', arguments.registry, arguments.name)
if known then return known end
if redis.call('HLEN', arguments.registry) >= arguments.max_loras then return 'full' end
if redis.call('GET', KEY.input .. sha256_of(arguments.input)) ~= arguments.input then return 'swept' end
redis.call('HSET', arguments.registry, arguments.name, arguments.row)
redis.call('HINCRBY', KEY.input_holders, arguments.input, 1)
return 'kept'
