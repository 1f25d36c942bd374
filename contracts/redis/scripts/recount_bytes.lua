-- Compares items of an owner's stored bytes with the records: removes those of inputs and jobs that are gone, and adds
-- those in `missing` (item -> bytes) that have no row. With `sum`, adds all rows up, and returns the sum.
write_even_if_full()
local rows = KEY.owner_bytes .. arguments.owner

local function exists(item)
  local kind, name = string.match(item, '^(%a+):(.*)$')
  if kind == 'job' then return redis.call('HEXISTS', job_key(name), 'state') == 1 end
  local sha256 = kind == 'input' and sha256_of(name)
  return sha256 and (redis.call('GET', KEY.input .. sha256) == name
    or redis.call('HEXISTS', KEY.input_holders, name) == 1 or redis.call('ZSCORE', KEY.garbage, name))
end

for _, item in ipairs(arguments.items) do
  if not exists(item) then
    set_stored(arguments.owner, item, 0)
  elseif arguments.missing and redis.call('HEXISTS', rows, item) == 0 then
    set_stored(arguments.owner, item, arguments.missing[item])
  end
end
if not arguments.sum then return 0 end

local sum = 0
for _, bytes in ipairs(redis.call('HVALS', rows)) do sum = sum + (tonumber(bytes) or 0) end
if sum > 0 then
  redis.call('HSET', KEY.stored_bytes, arguments.owner, string.format('%.0f', sum))
else
  redis.call('HDEL', KEY.stored_bytes, arguments.owner)
end
return string.format('%.0f', sum)
