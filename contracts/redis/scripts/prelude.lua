-- Shared by all scripts: the clock, keys, events, and changes of a job's state. `KEY` is the table of keys.py.
-- All times are Unix seconds on Redis' own clock, so that clocks of machines need not agree.

local arguments = cjson.decode(ARGV[1])

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

-- Lua's tostring keeps 14 digits, too few for Unix time in microseconds.
local function stamp(seconds) return string.format('%.6f', seconds) end

local function job_key(id) return KEY.job .. id end
local function rq_key(id) return KEY.rq_job .. id end

-- Tells the listeners of all API processes that there is news; what it is, they read.
local function publish(id, kind) redis.call('PUBLISH', KEY.job_channel, id .. ' ' .. kind) end

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

-- Updates the state of a message in its job's record, if the job still exists.
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

-- If the job's webhook asks for this event, queues a message: an RQ job with a copy of the job's record.
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
  publish(id, kind)
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

-- Adds 1 to a counter in the totals; label values in the order of its row in `contracts/metrics.py`.
local function count(name, ...)
  redis.call('HINCRBY', KEY.totals, cjson.encode({ name, '', ... }), 1)
end

-- Counts a job into (1) or out of (-1) a state.
local function count_state(state, model, task, change)
  redis.call('HINCRBY', KEY.job_counts, cjson.encode({ state, model, task }), change)
end

-- Changes a job's state; nil removes it from the counts. Returns its model and task.
local function set_state(id, state)
  local job = redis.call('HMGET', job_key(id), 'state', 'model', 'task')
  count_state(job[1], job[2], job[3], -1)
  if state then
    count_state(state, job[2], job[3], 1)
    redis.call('HSET', job_key(id), 'state', state)
  end
  return job[2], job[3]
end

-- Removes one job or LoRA from an input's users. After the last one the input may be swept, unless it is held for
-- some time as well (an upload, a request that is being accepted).
local function release_input(input)
  if redis.call('HINCRBY', KEY.input_holders, input, -1) > 0 then return end
  redis.call('HDEL', KEY.input_holders, input)
  redis.call('ZADD', KEY.inputs, 'NX', stamp(now()), input)
end

-- The fence: only the execution that holds a job's lease may write.
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
  set_state(id, 'queued')
  redis.call('HDEL', job_key(id), 'progress')
  redis.call('HSET', rq_key(id), 'status', 'queued')
  redis.call('LPUSH', KEY.rq_queue .. queue, id)
  local tier = string.match(queue, '^' .. KEY.job_queue .. '([^:]+):')
  redis.call('SADD', KEY.waiting .. tier, queue)
end

local RQ_STATUS = { completed = 'finished', failed = 'failed', cancelled = 'canceled' }

-- Ends a job: state, result, RQ's status and registry, the event, and when it expires.
local function finish(id, queue, state, fields, ttl_seconds)
  local key, ended = job_key(id), now()
  local model, task = set_state(id, state)
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
  -- No key of it expires by itself: the sweep needs the record to find the job's files.
  redis.call('ZADD', KEY.expiry, stamp(ended + ttl_seconds), id)
  emit(id, state, { state = state })
end

local function failure(code, message, retryable)
  return { error = cjson.encode({ code = code, message = message, retryable = retryable }) }
end
