-- Asks for the end of a batch; returns its status before, with which nothing changes unless it is being worked on.
write_even_if_full()
local key = KEY.batch .. arguments.id
local before = redis.call('HGET', key, 'status')
if before == 'validating' or before == 'in_progress' then
  redis.call('HSET', key, 'status', 'cancelling', 'cancelling_at', stamp(now()))
end
return before
