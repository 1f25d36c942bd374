-- Where a job stands: how many are ahead in its own queue, the smoothed seconds of one of its steps (empty before the
-- first measurement), and how many workers live; false when it does not wait.
local ahead = redis.call('LPOS', 'rq:queue:' .. arguments.queue, arguments.id)
if not ahead then return false end
local workers = 0
for _, worker in ipairs(redis.call('ZRANGE', 'darkroom:workers', 0, -1)) do
  workers = workers + redis.call('EXISTS', 'darkroom:worker:' .. worker)
end
return { ahead, redis.call('HGET', 'darkroom:pace', arguments.pace) or '', workers }
