-- Puts back, without counting the attempt, jobs that a worker holds without knowing it: the answer to its claim was
-- lost. Those that were cancelled, or whose deadline has passed, end instead. Returns their number.
write_even_if_full()
local released, known = 0, {}
for _, execution in ipairs(arguments.known) do known[execution] = true end
for _, id in ipairs(redis.call('ZRANGE', KEY.leases, 0, -1)) do
  local job = redis.call('HMGET', job_key(id), 'worker', 'lease')
  if job[1] == arguments.worker and job[2] and not known[job[2]] then
    local queue = queue_of(id)
    release_lease(id, queue, job[2])
    if not end_interrupted(id, queue, 'before the job could run', arguments.ttl_seconds) then
      redis.call('HINCRBY', job_key(id), 'attempts', -1)
      requeue(id, queue)
      emit(id, 'queued', { reason = 'released by its worker' })
    end
    released = released + 1
  end
end
return released
