-- Shared by every script: the clock, the job's keys, and the ways in which a job changes hands.
-- All times are seconds on Redis' own clock, so that no two machines need to agree on theirs.

local arguments = cjson.decode(ARGV[1])

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

-- Redis' own tostring keeps 14 digits, too few for microseconds since 1970.
local function stamp(seconds) return string.format('%.6f', seconds) end

local function job_key(id) return KEY.job .. id end
local function rq_key(id) return KEY.rq_job .. id end

-- Tells the listeners of all API processes that there is news; what it is, they read.
local function ring(id, kind) redis.call('PUBLISH', KEY.job_channel, id .. ' ' .. kind) end

local function webhook_queue(site) return KEY.webhook_queue .. site end

-- The one call that a dispatcher runs, as RQ keeps it; whatever else lies in a queue was planted.
local function delivery_call(id) return '["dispatcher.rq_job.deliver_message",null,["' .. id .. '"],{}]' end

-- Puts a message into the queue of its receiver, which gets its turn after those that wait already.
local function queue_delivery(id, site, push)
  local queue = webhook_queue(site)
  redis.call('HSET', rq_key(id), 'status', 'queued')
  redis.call(push, KEY.rq_queue .. queue, id)
  redis.call('SADD', KEY.rq_queues, KEY.rq_queue .. queue)
  redis.call('ZADD', KEY.site_turns, 'NX', redis.call('INCR', KEY.site_turn), site)
  redis.call('PUBLISH', KEY.wake_messages, id)
end

-- Shows with a job how far one of its messages is. A job that is no more has nobody to show it to.
local function show_delivery(id, job, changes)
  local key = job_key(job)
  if redis.call('HEXISTS', key, 'state') == 0 then return end
  local deliveries = cjson.decode(redis.call('HGET', key, 'deliveries') or '{}')
  local shown = deliveries[id] or {}
  shown.status_code, shown.error, shown.updated_at = nil, nil, stamp(now())
  for name, value in pairs(changes) do shown[name] = value end
  deliveries[id] = shown
  redis.call('HSET', key, 'deliveries', cjson.encode(deliveries))
end

-- Where a job's webhook asks for this news: an RQ job that tells it, and keeps the job as it is now.
local function notify(id, kind, event)
  local text = redis.call('HGET', job_key(id), 'webhook')
  local webhook, asked = text and cjson.decode(text), false
  for _, one in ipairs(webhook and webhook.events or {}) do asked = asked or one == kind end
  if not asked then return end
  local fields, flat = {}, redis.call('HGETALL', job_key(id))
  for index = 1, #flat, 2 do fields[flat[index]] = flat[index + 1] end
  local delivery = 'msg_' .. id .. '_' .. string.gsub(event, '-', '_')
  redis.call('HSET', rq_key(delivery), 'origin', webhook_queue(webhook.site), 'timeout', -1,
             'description', kind .. ' of job ' .. id, 'data', delivery_call(delivery),
             'job', id, 'event', kind, 'site', webhook.site, 'attempts', 0, 'record', cjson.encode(fields))
  queue_delivery(delivery, webhook.site, 'RPUSH')
  show_delivery(delivery, id, { event = kind, status = 'pending', attempts = 0 })
end

local function emit(id, kind, data)
  ring(id, kind)
  if kind == 'queued' then redis.call('PUBLISH', KEY.wake_jobs, id) end
  local event = redis.call('XADD', KEY.events .. id, 'MAXLEN', '~', 1024, '*', 'event', kind,
                           'data', cjson.encode(data))
  if kind ~= 'progress' and kind ~= 'preview' then notify(id, kind, event) end
end

-- The content hash in an input's storage key; nil for keys that are not content-addressed, and so not counted.
local function sha256_of(key)
  local found = string.match(key, '^inputs/(%x+)%.')
  return found and #found == 64 and found or nil
end

-- Adds to the service's totals; label values in the order of the row in `contracts/metrics.py`.
local function count(name, ...)
  redis.call('HINCRBY', KEY.totals, cjson.encode({ name, '', ... }), 1)
end

-- Counts a job in or out of a state; every change of a job's state does.
local function enrol(state, model, task, change)
  redis.call('HINCRBY', KEY.job_counts, cjson.encode({ state, model, task }), change)
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

-- One holder of an input less. Held for a time as well (an upload, a request on its way), it stays for that; else, after
-- the last one, it is due at once.
local function let_go(input)
  if redis.call('HINCRBY', KEY.input_holders, input, -1) > 0 then return end
  redis.call('HDEL', KEY.input_holders, input)
  redis.call('ZADD', KEY.inputs, 'NX', stamp(now()), input)
end

-- The fence: only the execution that holds the lease may write.
local function holds_lease(id, execution)
  return redis.call('HGET', job_key(id), 'lease') == execution
end

local function release_lease(id, queue, execution)
  redis.call('HDEL', job_key(id), 'lease')
  redis.call('ZREM', KEY.leases, id)
  redis.call('ZREM', KEY.rq_started .. queue, id .. ':' .. execution)
end

-- Puts a job at the front of its queue, so that what was begun first is served first.
local function requeue(id, queue)
  enter(id, 'queued')
  redis.call('HDEL', job_key(id), 'progress')
  redis.call('HSET', rq_key(id), 'status', 'queued')
  redis.call('LPUSH', KEY.rq_queue .. queue, id)
  local tier = string.match(queue, '^' .. KEY.job_queue .. '([^:]+):')
  redis.call('SADD', KEY.waiting .. tier, queue)
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
  redis.call('ZADD', KEY['rq_' .. RQ_STATUS[state]] .. queue, ended + ttl_seconds, id)
  redis.call('ZREM', KEY.deadlines, id)
  -- No key of it expires by itself: whoever sweeps needs to know what belongs to the job, and whose it is.
  redis.call('ZADD', KEY.expiry, stamp(ended + ttl_seconds), id)
  emit(id, state, { state = state })
end

local function failure(code, message, retryable)
  return { error = cjson.encode({ code = code, message = message, retryable = retryable }) }
end
