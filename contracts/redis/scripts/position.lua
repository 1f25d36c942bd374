-- Returns a waiting job's position, see `position_after`; false if it is not waiting. Arguments: its `id`, and what its
-- record has of `queue`, `tier`, `owner`, `work` and `created_at`.
local job = arguments
job.ahead = redis.call('LPOS', KEY.rq_queue .. job.queue, job.id)
return position_after(job)
