-- Returns a job's position in its queue, see `position_after`; false if it is not waiting.
return position_after(redis.call('LPOS', KEY.rq_queue .. arguments.queue, arguments.id), arguments.pace)
