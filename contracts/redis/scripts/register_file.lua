-- Enters a file of a batch, whose content is the input `input`, among its owner's files. Returns `kept`; or, without
-- changing anything, `swept` if the content is gone, `full` if the owner has `max_files`.
local index = KEY.owner_files .. arguments.owner
if redis.call('EXISTS', KEY.file .. arguments.id) == 0 then
  for _, id in ipairs(redis.call('ZRANGE', index, 0, -1)) do
    if redis.call('EXISTS', KEY.file .. id) == 0 then redis.call('ZREM', index, id) end
  end
  if redis.call('ZCARD', index) >= arguments.max_files then return 'full' end
end
return write_file(arguments)
