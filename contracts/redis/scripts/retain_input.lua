-- Keeps the input with this content for at least `seconds`. Returns its storage key.
-- `key` is the storage key of a new input; without it, an unknown input gives false.
-- With `owner`, its `bytes` are counted as the owner's; beyond `max_bytes` of them nothing changes, and a list with
-- what the owner has is returned.
local pointer = KEY.input .. arguments.sha256
local key = redis.call('GET', pointer)
if not key and not arguments.key then return false end
local item = 'input:' .. (key or arguments.key)
if arguments.owner and redis.call('HEXISTS', KEY.owner_bytes .. arguments.owner, item) == 0 then
  local exceeds, total = exceeds_limit(arguments.owner, arguments.bytes, arguments.max_bytes)
  if exceeds then return { total } end
  set_stored(arguments.owner, item, arguments.bytes)
end
if not key then
  key = arguments.key
  redis.call('SET', pointer, key)
end
redis.call('ZADD', KEY.inputs, 'GT', stamp(now() + arguments.seconds), key)
return key
