-- Pauses a model (`*`: all), or drains a worker, by a row of a hash that claims read; without `row`, ends that. Rows of
-- workers that were drained `max_seconds` ago are removed: names of most are never used again. Returns whether there was
-- a row before.
write_even_if_full()
local before = redis.call('HEXISTS', arguments.key, arguments.name)
if arguments.max_seconds then
  local rows = redis.call('HGETALL', arguments.key)
  for index = 1, #rows, 2 do
    local since = tonumber(decode(rows[index + 1], {}).since) or 0
    if since < now() - arguments.max_seconds then redis.call('HDEL', arguments.key, rows[index]) end
  end
end
if not arguments.row then
  redis.call('HDEL', arguments.key, arguments.name)
  redis.call('PUBLISH', KEY.wake_jobs, '')
  return before
end
arguments.row.since = now()
redis.call('HSET', arguments.key, arguments.name, cjson.encode(arguments.row))
redis.call('HDEL', KEY.claimers, arguments.name)
return before
