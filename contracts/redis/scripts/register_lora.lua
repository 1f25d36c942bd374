-- Enters an adapter into a shelf under a name that is free, and holds its file. Returns `kept`; or, and nothing is
-- done, what is there under that name, `swept` where the file is there no more, `full` where the shelf is.
local known = redis.call('HGET', arguments.registry, arguments.name)
if known then return known end
if redis.call('HLEN', arguments.registry) >= arguments.max_loras then return 'full' end
if redis.call('GET', KEY.input .. sha256_of(arguments.input)) ~= arguments.input then return 'swept' end
redis.call('HSET', arguments.registry, arguments.name, arguments.row)
redis.call('HINCRBY', KEY.input_holders, arguments.input, 1)
return 'kept'
