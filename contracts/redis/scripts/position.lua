-- Where a job stands: how many are ahead in its own queue, the smoothed seconds of one of its steps (empty before the
-- first measurement), and how many workers live; false when it does not wait.
local ahead = redis.call('LPOS', KEY.rq_queue .. arguments.queue, arguments.id)
if not ahead then return false end
local workers = 0
for _, worker in ipairs(redis.call('ZRANGE', KEY.workers, 0, -1)) do
  workers = workers + redis.call('EXISTS', KEY.worker .. worker)
end
return { ahead, redis.call('HGET', KEY.step_seconds, arguments.pace) or '', workers }
