-- Shared by every script: the clock, the job's keys, and the ways in which a job changes hands.
-- All times are seconds on Redis' own clock, so that no two machines need to agree on theirs.

local arguments = cjson.decode(ARGV[1])

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

-- Redis' own tostring keeps 14 digits, too few for microseconds since 1970.
local function stamp(seconds) return string.format('%.6f', seconds) end

local function job_key(id) return 'darkroom:job:' .. id end
local function rq_key(id) return 'rq:job:' .. id end

-- Tells the listeners of all API processes that there is news; what it is, they read.
local function ring(id, kind) redis.call('PUBLISH', 'darkroom:bells', id .. ' ' .. kind) end

local function emit(id, kind, data)
  ring(id, kind)
  redis.call('XADD', 'darkroom:events:' .. id, 'MAXLEN', '~', 1024, '*', 'event', kind, 'data', cjson.encode(data))
end

-- The content hash in an input's storage key; nil for keys that are not content-addressed, and so not counted.
local function sha256_of(key)
  local found = string.match(key, '^inputs/(%x+)%.')
  return found and #found == 64 and found or nil
end

-- Adds to the service's totals; label values in the order of the row in `contracts/metrics.py`.
local function count(name, ...)
  redis.call('HINCRBY', 'darkroom:totals', cjson.encode({ name, '', ... }), 1)
end

-- Counts a job in or out of a state; every change of a job's state does.
local function enrol(state, model, task, change)
  redis.call('HINCRBY', 'darkroom:census', cjson.encode({ state, model, task }), change)
end

-- Moves a job from its state to another; without one, out of the census. Returns its model and its task.
local function enter(id, state)
  local job = redis.call('HMGET', job_key(id), 'state', 'model', 'task')
  enrol(job[1], job[2], job[3], -1)
  if state then
    enrol(state, job[2], job[3], 1)
    redis.call('HSET', job_key(id), 'state', state)
  end
  return job[2], job[3]
end

-- The fence: only the execution that holds the lease may write.
local function holds_lease(id, execution)
  return redis.call('HGET', job_key(id), 'lease') == execution
end

local function release_lease(id, queue, execution)
  redis.call('HDEL', job_key(id), 'lease')
  redis.call('ZREM', 'darkroom:leases', id)
  redis.call('ZREM', 'rq:wip:' .. queue, id .. ':' .. execution)
end

-- Puts a job at the front of its queue, so that what was begun first is served first.
local function requeue(id, queue)
  enter(id, 'queued')
  redis.call('HDEL', job_key(id), 'progress')
  redis.call('HSET', rq_key(id), 'status', 'queued')
  redis.call('LPUSH', 'rq:queue:' .. queue, id)
  local tier = string.match(queue, '^darkroom:([^:]+):')
  redis.call('SADD', 'darkroom:waiting:' .. tier, queue)
end

local RQ_STATUS = { completed = 'finished', failed = 'failed', cancelled = 'canceled' }

-- Ends a job for good: state, result, RQ's status and registry, the event, and when it is to be buried.
local function finish(id, queue, state, fields, ttl_seconds)
  local key, ended = job_key(id), now()
  local model, task = enter(id, state)
  count('jobs_ended', state, model, task)
  if fields.error then count('job_failures', cjson.decode(fields.error).code) end
  local written = { 'finished_at', stamp(ended), 'expires_at', stamp(ended + ttl_seconds) }
  for name, value in pairs(fields) do
    written[#written + 1] = name
    written[#written + 1] = value
  end
  redis.call('HSET', key, unpack(written))
  redis.call('HSET', rq_key(id), 'status', RQ_STATUS[state])
  redis.call('ZADD', 'rq:' .. RQ_STATUS[state] .. ':' .. queue, ended + ttl_seconds, id)
  redis.call('ZREM', 'darkroom:deadlines', id)
  -- No key of it expires by itself: whoever sweeps needs to know what belongs to the job, and whose it is.
  redis.call('ZADD', 'darkroom:expiry', stamp(ended + ttl_seconds), id)
  emit(id, state, { state = state })
end

local function failure(code, message, retryable)
  return { error = cjson.encode({ code = code, message = message, retryable = retryable }) }
end
