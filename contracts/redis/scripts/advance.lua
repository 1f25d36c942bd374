-- Writes the progress of jobs after a step. Returns one verdict per job: `on` (continue), `lost` (the lease is gone),
-- `cancel` or `deadline`.
local verdicts = {}
for index, execution in ipairs(arguments.executions) do
  local key = job_key(execution.id)
  local job = redis.call('HMGET', key, 'lease', 'cancel_requested', 'deadline_at')
  if job[1] ~= execution.execution then
    verdicts[index] = 'lost'
  elseif job[2] then
    verdicts[index] = 'cancel'
  elseif job[3] and tonumber(job[3]) < now() then
    verdicts[index] = 'deadline'
  else
    redis.call('HSET', key, 'progress', cjson.encode(arguments.progress))
    emit(execution.id, 'progress', arguments.progress)
    verdicts[index] = 'on'
  end
end
return verdicts
