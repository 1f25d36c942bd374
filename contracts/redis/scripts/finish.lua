-- Ends a job. Returns the state in which it ended; false, without writing anything, if the lease was lost.
-- A cancel or a deadline that came before wins: of a job that has completed, either, of one that has failed, a cancel.
-- An execution that repeats the call, because the first answer did not arrive, gets the same answer.
write_even_if_full()
local id, key = arguments.id, job_key(arguments.id)
local job = redis.call('HMGET', key, 'ended_by', 'state', 'cancel_requested')
if job[1] == arguments.execution then return job[2] end
if not holds_lease(id, arguments.execution) then return false end
local queue = queue_of(id)
release_lease(id, queue, arguments.execution, arguments.used_seconds, arguments.energy)
if arguments.measured then
  learn_pace(arguments.measured.work, arguments.measured.seconds)
  learn_costs(arguments.measured, arguments.used_seconds)
end
redis.call('HSET', key, 'ended_by', arguments.execution)
local state
if arguments.state == 'completed' or job[3] then
  state = end_interrupted(id, queue, 'while the job was running', arguments.ttl_seconds)
end
if not state then
  state = arguments.state
  finish(id, queue, state, arguments.fields, arguments.ttl_seconds)
end
return state
