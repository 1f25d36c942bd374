-- Functions that the scripts share: the clock, keys, events, and the changes of a job's state.
-- All times are seconds on Redis's clock, so the machines' clocks may differ.

local arguments = cjson.decode(ARGV[1])

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

-- Lua's tostring keeps 14 digits, too few for microseconds since 1970.
local function stamp(seconds) return string.format('%.6f', seconds) end

local function job_key(id) return KEY.job .. id end
local function rq_key(id) return KEY.rq_job .. id end

-- Tells the listeners in all API processes that a job has a new event; they read the event themselves.
local function publish(id, kind) redis.call('PUBLISH', KEY.job_channel, id .. ' ' .. kind) end

-- Redis refuses the writes of a script that began while its memory is full, until one has run that can only free.
-- Scripts that end or free something, or lead to that, begin with such a write, which changes nothing. (From Redis 7
-- on, the flag `allow-oom` would say the same, but Redis 6.2 runs no script that has flags.)
local function write_even_if_full() redis.call('ZREM', KEY.leases, '') end

-- Records of other releases may lack a field, or have another form of it: a script must not fail in the middle.
local function text(field) return field or '' end

-- The object or array in some JSON; `default` where there is neither.
local function decode(json, default)
  local is_json, value = pcall(cjson.decode, json)
  return is_json and type(value) == 'table' and value or default
end

-- The strings in a JSON array; `default` where it is not an array of strings.
local function strings(json, default)
  local values = decode(json, default)
  for _, value in ipairs(values) do
    if type(value) ~= 'string' then return default end
  end
  return values
end

local function webhook_queue(site) return KEY.webhook_queue .. site end

-- The only call that a dispatcher runs, as RQ stores it; any other call in a queue is foreign.
local function delivery_call(id) return '["dispatcher.rq_job.deliver_message",null,["' .. id .. '"],{}]' end

-- Puts a message into the queue of its receiver, which takes its turn after receivers that already wait. Also enters it
-- in an index, so that `reap` finds a message that somebody else has taken out of its queue.
local function queue_delivery(id, site, push)
  local queue = webhook_queue(site)
  redis.call('HSET', rq_key(id), 'status', 'queued')
  redis.call(push, KEY.rq_queue .. queue, id)
  redis.call('ZADD', KEY.webhook_queued, stamp(now()), id)
  redis.call('SADD', KEY.rq_queues, KEY.rq_queue .. queue)
  redis.call('ZADD', KEY.site_turns, 'NX', redis.call('INCR', KEY.site_turn), site)
  redis.call('PUBLISH', KEY.wake_messages, id)
end

-- Updates how a job's view shows one of its messages; does nothing once the job is gone.
local function show_delivery(id, job, changes)
  local key = job_key(job)
  if redis.call('HEXISTS', key, 'state') == 0 then return end
  local deliveries = decode(redis.call('HGET', key, 'deliveries'), {})
  local shown = type(deliveries[id]) == 'table' and deliveries[id] or {}
  shown.status_code, shown.error, shown.updated_at = nil, nil, stamp(now())
  for name, value in pairs(changes) do shown[name] = value end
  deliveries[id] = shown
  redis.call('HSET', key, 'deliveries', cjson.encode(deliveries))
end

-- The fields that never change, and may be long: a message has no copy of them while its job's record exists.
local CONSTANT_FIELDS = { 'parameters', 'metadata', 'webhook' }

-- Queues a message, with the job's record as it is now, if the job's webhook asks for this kind of event.
-- Messages of one job are numbered from 1, so that a receiver can put them in order.
local function notify(id, kind, event)
  local webhook, wanted = decode(redis.call('HGET', job_key(id), 'webhook'), {}), false
  local events = type(webhook.events) == 'table' and webhook.events or {}
  for _, name in ipairs(events) do wanted = wanted or name == kind end
  if not wanted or type(webhook.site) ~= 'string' then return end
  local sequence = redis.call('HINCRBY', job_key(id), 'message_sequence', 1)
  local fields, flat = {}, redis.call('HGETALL', job_key(id))
  for index = 1, #flat, 2 do fields[flat[index]] = flat[index + 1] end
  for _, name in ipairs(CONSTANT_FIELDS) do fields[name] = nil end
  fields.previews = nil
  local delivery = 'msg_' .. id .. '_' .. string.gsub(event, '-', '_')
  redis.call('HSET', rq_key(delivery), 'origin', webhook_queue(webhook.site), 'timeout', -1,
             'description', kind .. ' of job ' .. id, 'data', delivery_call(delivery),
             'job', id, 'event', kind, 'site', webhook.site, 'attempts', 0, 'sequence', sequence,
             'record', cjson.encode(fields))
  queue_delivery(delivery, webhook.site, 'RPUSH')
  show_delivery(delivery, id, { event = kind, status = 'pending', attempts = 0, sequence = sequence })
end

-- Appends an event to a job's stream, and tells who listens; returns the event's id.
local function emit(id, kind, data)
  publish(id, kind)
  if kind == 'queued' then redis.call('PUBLISH', KEY.wake_jobs, id) end
  local event = redis.call('XADD', KEY.events .. id, 'MAXLEN', '~', 1024, '*', 'event', kind,
                           'data', cjson.encode(data))
  if kind ~= 'progress' and kind ~= 'preview' and kind ~= 'preparing' then notify(id, kind, event) end
  return event
end

-- The content hash in an input's storage key; nil for other keys, whose holders are not counted.
local function sha256_of(key)
  local found = string.match(key, '^inputs/(%x+)%.')
  return found and #found == 64 and found or nil
end

-- Adds 1 to a counter in the totals; label values in the order of its row in `contracts/metrics.py`.
local function count(name, ...)
  redis.call('HINCRBY', KEY.totals, cjson.encode({ name, '', ... }), 1)
end

-- Adds to what the jobs of a job's API key and model have used today (UTC). Fields without a model are those of
-- earlier releases; keys and figures have no spaces in their names.
local USAGE_SECONDS = 92 * 86400
local function add_usage(id, figures)
  local key = KEY.usage .. string.format('%d', math.floor(now() / 86400))
  local job = redis.call('HMGET', job_key(id), 'api_key', 'model')
  for name, value in pairs(figures) do
    local field = text(job[1]) .. ' ' .. name .. ' ' .. text(job[2])
    redis.call('HINCRBYFLOAT', key, field, string.format('%.6f', value))
  end
  redis.call('EXPIRE', key, USAGE_SECONDS)
end

-- What a job that has ended has made: figures for `add_usage`.
local function made_by(id, images)
  local made = { jobs = 1, images = 0, image_steps = 0, pixels = 0 }
  for _, image in ipairs(images and cjson.decode(images) or {}) do
    made.images = made.images + 1
    made.pixels = made.pixels + (tonumber(image.width) or 0) * (tonumber(image.height) or 0)
  end
  if made.images > 0 then made.image_steps = tonumber(decode(redis.call('HGET', job_key(id), 'work'), {}).image_steps) or 0 end
  return made
end

-- In accounts.lua, which follows this file in every script.
local count_load, drop_idle_accounts, settle_account

-- Counts a job in a state (`change` 1), or no longer (-1); called at every change of a job's state.
local function count_job(state, job, change)
  redis.call('HINCRBY', KEY.job_counts, cjson.encode({ state, job.model, job.task }), change)
  if state == 'queued' then count_load(job.priority, job.owner, change) end
  if state == 'running' then count_load('running', job.owner, change) end
end

-- Enters a waiting job in the indexes of what it needs (a model, ControlNets, adapters), with which those are found
-- that wait for one of these, however many others wait; or removes it from them, if `is_waiting` is false.
local function index_needs(id, is_waiting)
  local job = redis.call('HMGET', job_key(id), 'needs', 'model', 'sequence')
  for _, name in ipairs(strings(job[1], { text(job[2]) })) do
    if is_waiting == false then
      redis.call('ZREM', KEY.needed .. name, id)
    else
      redis.call('ZADD', KEY.needed .. name, tonumber(job[3] or nil) or 0, id)
    end
  end
end

-- Moves a job to another state; without one, only out of the counts. Returns its model and its task.
local function enter(id, state)
  local found = redis.call('HMGET', job_key(id), 'state', 'model', 'task', 'owner', 'priority')
  local job = { model = text(found[2]), task = text(found[3]), owner = text(found[4]), priority = text(found[5]) }
  if found[1] then count_job(found[1], job, -1) end
  if found[1] == 'queued' and state ~= 'queued' then index_needs(id, false) end
  if state then
    count_job(state, job, 1)
    redis.call('HSET', job_key(id), 'state', state)
    if state == 'queued' then index_needs(id) end
  end
  drop_idle_accounts()
  return job.model, job.task
end

-- The queue of a job; RQ's record names it too.
local function queue_of(id)
  return redis.call('HGET', job_key(id), 'queue') or text(redis.call('HGET', rq_key(id), 'origin'))
end

-- Removes one holder of an input. Without holders it may be swept: after the time for which it was retained (an upload,
-- a request in progress), otherwise at once.
local function release_input(input)
  if redis.call('HINCRBY', KEY.input_holders, input, -1) > 0 then return end
  redis.call('HDEL', KEY.input_holders, input)
  redis.call('ZADD', KEY.inputs, 'NX', stamp(now()), input)
end

-- Lets go of a training's checkpoint, which is swept at once unless another job holds it or the same content.
local function release_checkpoint(id)
  local input = decode(redis.call('HGET', job_key(id), 'checkpoint'), {}).key
  if not input then return end
  release_input(input)
  redis.call('ZADD', KEY.inputs, 'XX', stamp(now()), input)
end

-- Whether the content of a file of a batch is still registered.
local function has_content(file) return redis.call('GET', KEY.input .. text(sha256_of(file.input))) == file.input end

-- Writes the record of a file of a batch; returns `kept`, or `swept` where its content is gone.
local function write_file(file)
  if not has_content(file) then return 'swept' end
  for name, value in pairs(file.fields) do redis.call('HSET', KEY.file .. file.id, name, value) end
  redis.call('EXPIREAT', KEY.file .. file.id, math.ceil(file.expires_at))
  redis.call('ZADD', KEY.owner_files .. file.owner, stamp(file.created_at), file.id)
  return 'kept'
end

-- The fence: only the execution that holds the lease may write.
local function holds_lease(id, execution)
  return redis.call('HGET', job_key(id), 'lease') == execution
end

-- `used_seconds`: worker time that the execution used; nil where nobody has told. `energy`: the same.
local function release_lease(id, queue, execution, used_seconds, energy)
  redis.call('HDEL', job_key(id), 'lease')
  redis.call('ZREM', KEY.leases, id)
  redis.call('ZREM', KEY.rq_started .. queue, id .. ':' .. execution)
  settle_account(id, used_seconds, energy)
end

-- Puts a job at the front of its queue, so that jobs that were started first are served first.
local function requeue(id, queue)
  enter(id, 'queued')
  local checkpoint = decode(redis.call('HGET', job_key(id), 'checkpoint'), {})
  if checkpoint.progress then
    redis.call('HSET', job_key(id), 'progress', cjson.encode(checkpoint.progress))
  else
    redis.call('HDEL', job_key(id), 'progress')
  end
  redis.call('HSET', rq_key(id), 'status', 'queued')
  redis.call('LPUSH', KEY.rq_queue .. queue, id)
  local tier = string.match(queue, '^' .. KEY.job_queue .. '([^:]+):')
  if tier then redis.call('SADD', KEY.waiting .. tier, queue) end
  local deadline = tonumber(redis.call('HGET', job_key(id), 'deadline_at') or nil)
  if deadline then redis.call('ZADD', KEY.deadlines, stamp(deadline), id) end
end

-- Sets how many bytes an item of an owner takes in the storage: `input:KEY` or `job:ID`; 0 removes the item. The sum
-- of an owner's items is kept beside them. Numbers are formatted, since tostring keeps 14 digits.
local function set_stored(owner, item, bytes)
  local rows = KEY.owner_bytes .. owner
  local change = bytes - (tonumber(redis.call('HGET', rows, item) or nil) or 0)
  if bytes > 0 then
    redis.call('HSET', rows, item, string.format('%.0f', bytes))
  else
    redis.call('HDEL', rows, item)
  end
  if change == 0 then return end
  if redis.call('HINCRBY', KEY.stored_bytes, owner, string.format('%.0f', change)) <= 0 then
    redis.call('HDEL', KEY.stored_bytes, owner)
  end
end

-- Whether so many bytes more would exceed what an owner may have (`max_bytes`; 0: no limit). Also returns what the
-- owner has.
local function exceeds_limit(owner, bytes, max_bytes)
  local total = tonumber(redis.call('HGET', KEY.stored_bytes, owner) or 0)
  return max_bytes > 0 and total + bytes > max_bytes, string.format('%.0f', total)
end

-- The bytes of the images in a job's result; 0 without any.
local function result_bytes(images)
  local bytes = 0
  for _, image in ipairs(images and cjson.decode(images) or {}) do bytes = bytes + (image.size_bytes or 0) end
  return bytes
end

-- Sets how many bytes of Redis' memory a job's records take, which count for its owner; 0 when they are removed.
local function set_record_bytes(id, owner, bytes)
  local change = bytes - (tonumber(redis.call('HGET', job_key(id), 'record_bytes') or nil) or 0)
  redis.call('HSET', job_key(id), 'record_bytes', bytes)
  if redis.call('HINCRBY', KEY.record_bytes, owner, change) <= 0 then redis.call('HDEL', KEY.record_bytes, owner) end
end

local function measure_records(id, owner)
  local bytes = 0
  for _, key in ipairs({ job_key(id), rq_key(id), KEY.events .. id }) do
    local usage = redis.pcall('MEMORY', 'USAGE', key, 'SAMPLES', 0)
    bytes = bytes + (tonumber(usage) or 0)
  end
  set_record_bytes(id, owner, bytes)
end

local RQ_STATUS = { completed = 'finished', failed = 'failed', cancelled = 'canceled' }

-- Ends a job: state, result, RQ's status and registry, the event, and when its record expires.
local function finish(id, queue, state, fields, ttl_seconds)
  local key, ended = job_key(id), now()
  local model, task = enter(id, state)
  count('jobs_ended', state, model, task)
  if fields.error then count('job_failures', decode(fields.error, {}).code) end
  local written = { 'finished_at', stamp(ended), 'expires_at', stamp(ended + ttl_seconds) }
  for name, value in pairs(fields) do
    written[#written + 1] = name
    written[#written + 1] = value
  end
  redis.call('HSET', key, unpack(written))
  add_usage(id, made_by(id, fields.images))
  local owner = redis.call('HGET', key, 'owner')
  if owner then set_stored(owner, 'job:' .. id, result_bytes(fields.images)) end
  redis.call('HSET', rq_key(id), 'status', RQ_STATUS[state])
  if queue ~= '' then redis.call('ZADD', KEY['rq_' .. RQ_STATUS[state]] .. queue, ended + ttl_seconds, id) end
  redis.call('ZREM', KEY.deadlines, id)
  redis.call('ZREM', KEY.attended, id)
  -- The job's keys have no TTL in Redis: the sweeper needs to know what belongs to the job, and who owns it.
  redis.call('ZADD', KEY.expiry, stamp(ended + ttl_seconds), id)
  emit(id, state, { state = state })
  if owner then measure_records(id, owner) end
end

local function failure(code, message, retryable)
  return { error = cjson.encode({ code = code, message = message, retryable = retryable }) }
end

-- Ends a job that must not go on: one that its owner has cancelled, or whose deadline has passed. Returns the state in
-- which it ended; nil if it may go on. `before` completes the message about a deadline.
local function end_interrupted(id, queue, before, ttl_seconds)
  local job = redis.call('HMGET', job_key(id), 'cancel_requested', 'deadline_at')
  if job[1] then
    finish(id, queue, 'cancelled', {}, ttl_seconds)
    return 'cancelled'
  end
  local deadline = tonumber(job[2] or nil)
  if deadline and deadline <= now() then
    finish(id, queue, 'failed', failure('deadline_exceeded', 'the deadline passed ' .. before, true), ttl_seconds)
    return 'failed'
  end
end

-- Cancels a job: a waiting job at once, a running one through a flag that its worker reads.
-- Returns the state before: `queued`, `running`, a final state (nothing changed), or false for an unknown job.
local function cancel_job(id, ttl_seconds)
  local state = redis.call('HGET', job_key(id), 'state')
  if state == 'queued' then
    local queue = queue_of(id)
    redis.call('LREM', KEY.rq_queue .. queue, 1, id)
    finish(id, queue, 'cancelled', {}, ttl_seconds)
  elseif state == 'running' then
    redis.call('HSET', job_key(id), 'cancel_requested', '1')
  end
  return state
end
