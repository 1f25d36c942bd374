-- Returns, as `place_of`, where a job waits and what was measured of jobs like it; false if it does not wait.
local ahead = redis.call('LPOS', KEY.rq_queue .. arguments.queue, arguments.id)
return ahead and place_of(arguments.id, ahead)
