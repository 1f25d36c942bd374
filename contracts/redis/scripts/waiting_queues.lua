-- Returns, as JSON, of each of these queues its length, when its first job was accepted, and the work of its first jobs,
-- up to `sample`, with what was measured of such work.
local paces, models, rows = {}, {}, {}
for _, queue in ipairs(arguments.queues) do
  local row = { length = redis.call('LLEN', KEY.rq_queue .. queue), works = {} }
  for _, id in ipairs(redis.call('LRANGE', KEY.rq_queue .. queue, 0, arguments.sample - 1)) do
    local job = redis.call('HMGET', job_key(id), 'work', 'created_at')
    local work = decode(job[1], {})
    if type(work.pace) == 'string' then paces[work.pace] = true end
    if type(work.model) == 'string' then models[work.model] = true end
    row.since = row.since or tonumber(job[2] or nil)
    if job[1] then row.works[#row.works + 1] = job[1] end
  end
  if row.since then row.since = stamp(row.since) end
  rows[#rows + 1] = row
end
return cjson.encode({ now = stamp(now()), rows = rows, measured = measured_costs(paces, models) })
