-- Removes a file of a batch; its content is swept once nothing holds it.
write_even_if_full()
redis.call('DEL', KEY.file .. arguments.id)
redis.call('ZREM', KEY.owner_files .. arguments.owner, arguments.id)
redis.call('ZADD', KEY.inputs, 'XX', stamp(now()), arguments.input)
return 1
