-- Writes the progress of jobs after a step; without `progress`, only looks. Returns one verdict per job: `on`
-- (continue), `lost` (the lease is gone), `cancel`, `deadline`, or `overtime` (it has run for longer than a job may).
write_even_if_full()
local verdicts = {}
for index, execution in ipairs(arguments.executions) do
  local key = job_key(execution.id)
  local job = redis.call('HMGET', key, 'lease', 'cancel_requested', 'deadline_at', 'started_at',
                         'max_run_seconds')
  local deadline, started, max_seconds = tonumber(job[3] or nil), tonumber(job[4] or nil), tonumber(job[5] or nil)
  if job[1] ~= execution.execution then
    verdicts[index] = 'lost'
  elseif job[2] then
    verdicts[index] = 'cancel'
  elseif deadline and deadline <= now() then
    verdicts[index] = 'deadline'
  elseif started and max_seconds and started + max_seconds < now() then
    verdicts[index] = 'overtime'
  else
    if arguments.progress then
      redis.call('HSET', key, 'progress', cjson.encode(arguments.progress))
      emit(execution.id, 'progress', arguments.progress)
    end
    verdicts[index] = 'on'
  end
end
return verdicts
