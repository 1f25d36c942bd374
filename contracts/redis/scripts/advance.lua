-- Writes of each running job how far it is (`progress`, if there is any) and how much worker time it has used. Returns one
-- verdict per job: `on` (continue), `lost` (the lease is gone), `cancel`, `deadline`, or `overtime` (it has used more time
-- than a job may; time during which others run in its place does not count).
write_even_if_full()
local verdicts = {}
for index, report in ipairs(arguments.reports) do
  local key = job_key(report.id)
  local job = redis.call('HMGET', key, 'lease', 'cancel_requested', 'deadline_at', 'max_run_seconds')
  local deadline, max_seconds = tonumber(job[3] or nil), tonumber(job[4] or nil)
  if job[1] ~= report.execution then
    verdicts[index] = 'lost'
  else
    redis.call('HSET', key, 'used_seconds', report.used_seconds)
    if report.energy then redis.call('HSET', key, 'used_energy', cjson.encode(report.energy)) end
    if job[2] then
      verdicts[index] = 'cancel'
    elseif deadline and deadline <= now() then
      verdicts[index] = 'deadline'
    elseif max_seconds and max_seconds < report.used_seconds then
      verdicts[index] = 'overtime'
    else
      if report.progress then
        redis.call('HSET', key, 'progress', cjson.encode(report.progress))
        emit(report.id, 'progress', report.progress)
      end
      verdicts[index] = 'on'
    end
  end
end
return verdicts
