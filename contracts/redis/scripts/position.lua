-- Returns the number of jobs ahead of a job in its queue, the average seconds per step (empty before the first
-- measurement) and the number of live workers; false if the job is not waiting.
local ahead = redis.call('LPOS', KEY.rq_queue .. arguments.queue, arguments.id)
if not ahead then return false end
local workers = 0
for _, worker in ipairs(redis.call('ZRANGE', KEY.workers, 0, -1)) do
  workers = workers + redis.call('EXISTS', KEY.worker .. worker)
end
return { ahead, redis.call('HGET', KEY.step_seconds, arguments.pace) or '', workers }
