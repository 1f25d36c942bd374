-- Takes an adapter from a shelf, and lets its file go; jobs that use it hold it still. Returns whether it was there.
local row = redis.call('HGET', arguments.registry, arguments.name)
if not row then return false end
redis.call('HDEL', arguments.registry, arguments.name)
let_go(cjson.decode(row).source)
return true
