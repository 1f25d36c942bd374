-- Returns, as JSON, where a job waits and what was measured of jobs like it (`measured_costs`); false if it does not wait.
local ahead = redis.call('LPOS', KEY.rq_queue .. arguments.queue, arguments.id)
if not ahead then return false end
local fields, job = { 'work', 'created_at', 'deadline_at', 'preparing', 'solo' }, { id = arguments.id }
for index, value in ipairs(redis.call('HMGET', job_key(arguments.id), unpack(fields))) do job[fields[index]] = value or nil end
job.tier, job.owner = arguments.tier, arguments.owner
local work = cjson.decode(arguments.work)
return cjson.encode({
  now = stamp(now()), job = job, ahead = ahead, account = account_of(arguments.owner, arguments.tier),
  measured = measured_costs({ [work.pace] = true }, { [work.model] = true }),
})
