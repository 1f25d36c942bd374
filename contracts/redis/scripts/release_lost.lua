-- Puts back, unspent, the jobs that a worker holds without knowing: a claim ran, and its answer was lost.
local given, known = 0, {}
for _, execution in ipairs(arguments.known) do known[execution] = true end
for _, id in ipairs(redis.call('ZRANGE', KEY.leases, 0, -1)) do
  local job = redis.call('HMGET', job_key(id), 'worker', 'lease', 'queue')
  if job[1] == arguments.worker and job[2] and not known[job[2]] then
    release_lease(id, job[3], job[2])
    redis.call('HINCRBY', job_key(id), 'attempts', -1)
    requeue(id, job[3])
    emit(id, 'queued', { reason = 'handed back' })
    given = given + 1
  end
end
return given
