-- Returns a waiting job's position, see `position_after`; false if it is not waiting.
local ahead = redis.call('LPOS', KEY.rq_queue .. arguments.queue, arguments.id)
return position_after(ahead, arguments.tier, arguments.work)
