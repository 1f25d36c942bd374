-- Removes a LoRA from a registry and releases its file, which jobs may still hold. Returns whether it existed.
write_even_if_full()
local row = redis.call('HGET', arguments.registry, arguments.name)
if not row then return false end
redis.call('HDEL', arguments.registry, arguments.name)
release_input(decode(row, {}).source)
return true
