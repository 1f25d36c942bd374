-- Writes the progress of jobs after a step, and returns for each: `on`, `lost` (another worker holds the lease),
-- `cancel` or `deadline`.
local verdicts = {}
for index, one in ipairs(arguments.executions) do
  local key = job_key(one.id)
  local found = redis.call('HMGET', key, 'lease', 'cancel_requested', 'deadline_at')
  if found[1] ~= one.execution then
    verdicts[index] = 'lost'
  elseif found[2] then
    verdicts[index] = 'cancel'
  elseif found[3] and tonumber(found[3]) < now() then
    verdicts[index] = 'deadline'
  else
    redis.call('HSET', key, 'progress', cjson.encode(arguments.progress))
    emit(one.id, 'progress', arguments.progress)
    verdicts[index] = 'on'
  end
end
return verdicts
