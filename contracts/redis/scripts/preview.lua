-- Publishes a preview of a running job. Returns 1; 0 if the lease was lost.
-- The job's stream has at most `max_bytes` of previews: the newest, and at least one.
if not holds_lease(arguments.id, arguments.execution) then return 0 end
local key, stream = job_key(arguments.id), KEY.events .. arguments.id
local previews = decode(redis.call('HGET', key, 'previews'), {})
previews[#previews + 1] = { emit(arguments.id, 'preview', arguments.preview), #arguments.preview.url }
local bytes = 0
for index = #previews, 1, -1 do
  bytes = bytes + previews[index][2]
  if bytes > arguments.max_bytes and index < #previews then
    redis.call('XDEL', stream, previews[index][1])
    table.remove(previews, index)
  end
end
redis.call('HSET', key, 'previews', cjson.encode(previews))
return 1
