-- Keeps the input with this content for at least `seconds`. Returns its storage key.
-- `key` is the storage key of a new input; without it, an unknown input gives false.
local pointer = KEY.input .. arguments.sha256
local key = redis.call('GET', pointer)
if not key then
  if not arguments.key then return false end
  key = arguments.key
  redis.call('SET', pointer, key)
end
redis.call('ZADD', KEY.inputs, 'GT', stamp(now() + arguments.seconds), key)
return key
