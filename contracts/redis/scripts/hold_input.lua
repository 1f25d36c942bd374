-- Keeps the input with this content from being swept for some seconds, at least.
-- Returns the storage key under which it is, or belongs; false where it must be there and is not.
local pointer = KEY.input .. arguments.sha256
local key = redis.call('GET', pointer)
if not key then
  if not arguments.key then return false end
  key = arguments.key
  redis.call('SET', pointer, key)
end
redis.call('ZADD', KEY.inputs, 'GT', stamp(now() + arguments.seconds), key)
return key
