-- Creates a batch, as a holder of its file's content. One that is sent again is created once. Returns `created`; or,
-- without changing anything, `swept` if the content is gone, `full` if too many of the owner's batches have not ended.
-- Of more than `max_batches`, the oldest that have ended are forgotten.
local key, index = KEY.batch .. arguments.id, KEY.owner_batches .. arguments.owner
if redis.call('EXISTS', key) == 1 then return 'created' end
if redis.call('GET', KEY.input .. text(sha256_of(arguments.input))) ~= arguments.input then return 'swept' end

local is_final, unfinished, ended = {}, 0, {}
for _, status in ipairs(arguments.final) do is_final[status] = true end
for _, id in ipairs(redis.call('ZRANGE', index, 0, -1)) do
  local status = redis.call('HGET', KEY.batch .. id, 'status')
  if not status then
    redis.call('ZREM', index, id)
  elseif is_final[status] then
    ended[#ended + 1] = id
  else
    unfinished = unfinished + 1
  end
end
if unfinished >= arguments.max_unfinished then return 'full' end
for place = 1, unfinished + #ended + 1 - arguments.max_batches do
  redis.call('DEL', KEY.batch .. ended[place])
  redis.call('ZREM', index, ended[place])
end

local created = now()
for name, value in pairs(arguments.fields) do redis.call('HSET', key, name, value) end
redis.call('HSET', key, 'status', 'validating', 'created_at', stamp(created),
           'expires_at', stamp(created + arguments.window_seconds))
redis.call('HINCRBY', KEY.input_holders, arguments.input, 1)
redis.call('ZADD', index, stamp(created), arguments.id)
redis.call('ZADD', KEY.batches, stamp(created), arguments.id)
return 'created'
