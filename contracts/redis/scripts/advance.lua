-- Writes the progress of jobs after a step; without `progress`, only looks. Returns one verdict per job: `on`
-- (continue), `lost` (the lease is gone), `cancel` or `deadline`.
write_even_if_full()
local verdicts = {}
for index, execution in ipairs(arguments.executions) do
  local key = job_key(execution.id)
  local job = redis.call('HMGET', key, 'lease', 'cancel_requested', 'deadline_at')
  local deadline = tonumber(job[3] or nil)
  if job[1] ~= execution.execution then
    verdicts[index] = 'lost'
  elseif job[2] then
    verdicts[index] = 'cancel'
  elseif deadline and deadline <= now() then
    verdicts[index] = 'deadline'
  else
    if arguments.progress then
      redis.call('HSET', key, 'progress', cjson.encode(arguments.progress))
      emit(execution.id, 'progress', arguments.progress)
    end
    verdicts[index] = 'on'
  end
end
return verdicts
