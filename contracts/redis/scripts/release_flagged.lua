-- Notes that an operator gives the owner of an ended job one of its flagged images. Returns the job's state, and changes
-- nothing unless that is `completed` or `failed`; false for a job that is unknown or has expired. Requeueing it takes
-- that back.
local id, key = arguments.id, job_key(arguments.id)
local job = redis.call('HMGET', key, 'state', 'expires_at', 'owner', 'released')
local state = job[1]
if not state or (tonumber(job[2] or nil) or math.huge) <= now() then return false end
if state ~= 'completed' and state ~= 'failed' then return state end
local released = decode(text(job[4]), {})
for _, number in ipairs(released) do
  if number == arguments.number then return state end
end
released[#released + 1] = arguments.number
redis.call('HSET', key, 'released', cjson.encode(released))
measure_records(id, text(job[3]))
return state
