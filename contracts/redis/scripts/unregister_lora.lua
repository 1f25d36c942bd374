-- Removes a LoRA from a registry and lets go of its file, which jobs may still hold. Returns whether it existed.
local row = redis.call('HGET', arguments.registry, arguments.name)
if not row then return false end
redis.call('HDEL', arguments.registry, arguments.name)
let_go(cjson.decode(row).source)
return true
