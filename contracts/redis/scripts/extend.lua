-- Extends the leases of executions that still hold one; returns the ids of the jobs of the others.
local lost = {}
for _, one in ipairs(arguments.executions) do
  if holds_lease(one.id, one.execution) then
    redis.call('ZADD', KEY.leases, 'XX', stamp(now() + arguments.lease_seconds), one.id)
  else
    lost[#lost + 1] = one.id
  end
end
return lost
