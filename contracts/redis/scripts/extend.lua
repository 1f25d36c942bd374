-- Extends the leases that the executions still hold. Returns the ids of jobs whose lease was lost.
write_even_if_full()
local lost = {}
for _, execution in ipairs(arguments.executions) do
  if holds_lease(execution.id, execution.execution) then
    redis.call('ZADD', KEY.leases, 'XX', stamp(now() + arguments.lease_seconds), execution.id)
  else
    lost[#lost + 1] = execution.id
  end
end
return lost
