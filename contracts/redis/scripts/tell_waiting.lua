-- Tells the waiting jobs that need something (`name`) how a worker's preparation of it goes on, or ends them: up to
-- `round` of them, in the order in which they were accepted, beginning after the job with the sequence number `after`.
-- With `preparation`, an object with a `state`, jobs are told: as an event, and in their field `preparing`, which a
-- preparation that is `ready` removes. With `max_jobs` only so many. Of those that are told that it is `retrying`, those
-- end with `error`, if there is one, that were told so first at least `limit_seconds` ago. Without `preparation`, all end
-- with `error`. With neither, nothing is done, and the first job that needs it is enough.
-- Jobs for which another worker is at work, as it has told them in the last `stale_seconds`, are left alone.
-- Returns the number of jobs that need it, at least 1 where there are more than `max_jobs`, the ids of those that ended,
-- what else the jobs need that were told, how many were told, and `after` for the next round, if there are more jobs.
if arguments.error then write_even_if_full() end
local time, needing, told, ended, others, is_other = now(), 0, 0, {}, {}, {}
local preparation, index = arguments.preparation, KEY.needed .. arguments.name
local at_work = { waiting = true, fetching = true, reading = true }

local function is_needed(needs)
  for _, need in ipairs(needs) do
    if need == arguments.name then return true end
  end
  return false
end

local function is_told_by_another(field)
  local before = decode(field, {})
  return before.worker ~= nil and before.worker ~= arguments.worker and at_work[before.state]
    and (tonumber(before.at) or 0) > time - arguments.stale_seconds
end

local function fail(id)
  local queue = queue_of(id)
  redis.call('LREM', KEY.rq_queue .. queue, 1, id)
  finish(id, queue, 'failed', { error = arguments.error }, arguments.ttl_seconds)
  ended[#ended + 1] = id
end

local function note_others(needs)
  for _, need in ipairs(needs) do
    if need ~= arguments.name and not is_other[need] and #others < 100 then
      is_other[need], others[#others + 1] = true, need
    end
  end
end

local function tell(id)
  local key = job_key(id)
  if preparation.state == 'ready' then
    redis.call('HDEL', key, 'preparing', 'retrying_since')
  else
    local field = { worker = arguments.worker, at = stamp(time) }
    for name, value in pairs(preparation) do field[name] = value end
    redis.call('HSET', key, 'preparing', cjson.encode(field))
    if preparation.state == 'retrying' then redis.call('HSETNX', key, 'retrying_since', stamp(time)) end
  end
  emit(id, 'preparing', preparation)
  told = told + 1
end

local function visit(id)
  local job = redis.call('HMGET', job_key(id), 'state', 'needs', 'preparing', 'retrying_since', 'model')
  local needs = strings(job[2], { text(job[5]) })
  if job[1] ~= 'queued' or not is_needed(needs) then
    redis.call('ZREM', index, id)  -- an earlier release has taken it out of its queue
    return
  end
  needing = needing + 1
  if not (preparation or arguments.error) then return end
  if is_told_by_another(job[3]) then return end
  local since = tonumber(job[4] or nil) or time
  if arguments.error and (not preparation or time - since >= arguments.limit_seconds) then
    fail(id)
  else
    tell(id)
    note_others(needs)
  end
end

local function is_enough()
  return arguments.max_jobs and told >= arguments.max_jobs or needing > 0 and not (preparation or arguments.error)
end

-- Jobs that an earlier release has queued are in no index. Claims enter those that need an adapter; here are the
-- first of a model's queues. Names of ControlNets and LoRAs have a colon, which ids of models cannot have.
local function index_first_jobs()
  local pattern = '^' .. KEY.job_queue .. '[^:]+:(.*):[^:]*$'
  for _, tier in ipairs(TIERS) do
    for _, queue in ipairs(redis.call('SMEMBERS', KEY.waiting .. tier)) do
      local first = string.match(queue, pattern) == arguments.name and redis.call('LINDEX', KEY.rq_queue .. queue, 0)
      if first and not redis.call('ZSCORE', index, first) then
        for _, id in ipairs(redis.call('LRANGE', KEY.rq_queue .. queue, 0, arguments.round - 1)) do index_needs(id) end
      end
    end
  end
end

if not arguments.after and not string.find(arguments.name, ':', 1, true) then index_first_jobs() end
local after = arguments.after and '(' .. arguments.after or '-inf'
local found = redis.call('ZRANGEBYSCORE', index, after, '+inf', 'WITHSCORES', 'LIMIT', 0, arguments.round)
for place = 1, #found, 2 do
  visit(found[place])
  if is_enough() then return { needing, ended, others, told } end
end
return { needing, ended, others, told, #found == 2 * arguments.round and found[#found] or nil }
