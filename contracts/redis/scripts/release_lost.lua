-- Puts back, without counting the attempt, jobs that a worker holds without knowing it: the answer to its claim was
-- lost. Returns their number.
local released, known = 0, {}
for _, execution in ipairs(arguments.known) do known[execution] = true end
for _, id in ipairs(redis.call('ZRANGE', KEY.leases, 0, -1)) do
  local job = redis.call('HMGET', job_key(id), 'worker', 'lease', 'queue')
  if job[1] == arguments.worker and job[2] and not known[job[2]] then
    release_lease(id, job[3], job[2])
    redis.call('HINCRBY', job_key(id), 'attempts', -1)
    requeue(id, job[3])
    emit(id, 'queued', { reason = 'handed back' })
    released = released + 1
  end
end
return released
