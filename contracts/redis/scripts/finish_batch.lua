-- Ends a batch: its files of results become visible; the parts of which they were made, and its hold on the content of
-- its own file, are released. Returns 1; 0 where another process has the lease, `swept` where the content of a file is
-- gone: then nothing changes.
write_even_if_full()
local id, key = arguments.id, KEY.batch .. arguments.id
if redis.call('HGET', key, 'lease') ~= arguments.token then return 0 end
for _, file in ipairs(arguments.files) do
  if not has_content(file) then return 'swept' end
end
for _, file in ipairs(arguments.files) do write_file(file) end
for name, value in pairs(arguments.fields) do redis.call('HSET', key, name, value) end
redis.call('HSET', key, arguments.ended_at, stamp(now()))
redis.call('HDEL', key, 'lease')
for _, part in ipairs(redis.call('LRANGE', KEY.batch_parts .. id, 0, -1)) do
  redis.call('ZADD', KEY.inputs, 'XX', stamp(now()), string.match(part, ' (.*)$'))
end
redis.call('DEL', KEY.batch_parts .. id, KEY.batch_lines .. id)
redis.call('ZREM', KEY.batches, id)
release_input(text(redis.call('HGET', key, 'input_key')))
redis.call('EXPIRE', key, arguments.record_seconds)
return 1
