-- Adds a LoRA to a registry, if the name is free, as a holder of its file. Returns `kept`; or, without changing
-- anything, the row that has the name, `swept` if the file is gone, `full` if the registry has `max_loras`.
local known = redis.call('HGET', arguments.registry, arguments.name)
if known then return known end
if redis.call('HLEN', arguments.registry) >= arguments.max_loras then return 'full' end
if redis.call('GET', KEY.input .. sha256_of(arguments.input)) ~= arguments.input then return 'swept' end
redis.call('HSET', arguments.registry, arguments.name, arguments.row)
redis.call('HINCRBY', KEY.input_holders, arguments.input, 1)
return 'kept'
