-- Leases waiting jobs with the same batch key to a worker, up to `max_images` images.
-- With `peek` it leases nothing and returns the ids of the jobs that it would lease.
-- Order: by tier; within a tier the model of an overdue job (if `settled`), else a warm model, else the model of the
-- oldest job; within a model, owners take turns. If the next job needs a model or ControlNet that is not in `ready`,
-- returns only its name. Jobs that need something in `deferred` are skipped.
-- Cost: reads the head of each waiting queue (tier × model × owner) and up to `scan_limit` jobs.

local started = now()
local excluded, wait_seconds = {}, nil

local function set_of(names)
  local set = {}
  for _, name in ipairs(names) do set[name] = true end
  return set
end

local warm, deferred = set_of(arguments.warm), set_of(arguments.deferred)
local ready = arguments.ready and set_of(arguments.ready)

-- The first of a job's needs that is in a set (`is_in`), or is not in it; nil if there is none.
local function first_of(needs, set, is_in)
  for _, name in ipairs(needs) do
    if (set[name] or false) == is_in then return name end
  end
end

-- The first waiting job of a queue that is not deferred, and whether any job waits. Removes ids of jobs that are no
-- longer queued.
local function head(queue)
  local index = 0
  while index < arguments.scan_limit do
    local id = redis.call('LINDEX', KEY.rq_queue .. queue, index)
    if not id then break end
    local job = redis.call('HMGET', job_key(id), 'state', 'created_at', 'model', 'needs')
    local model, needs = job[3], job[4] and cjson.decode(job[4]) or { job[3] }
    if job[1] ~= 'queued' then
      redis.call('LREM', KEY.rq_queue .. queue, 1, id)
    elseif deferred[model] then
      return nil, true
    elseif first_of(needs, deferred, true) then
      index = index + 1
    else
      return { queue = queue, id = id, since = tonumber(job[2]), model = model, needs = needs }, true
    end
  end
  return nil, index > 0
end

-- The heads of a tier's queues: { queue, id, since, model, needs, owner }.
local function heads_of(tier)
  local heads = {}
  for _, queue in ipairs(redis.call('SMEMBERS', KEY.waiting .. tier)) do
    local job, waits = head(queue)
    if not waits then
      redis.call('SREM', KEY.waiting .. tier, queue)
    elseif job and not excluded[queue] then
      job.owner = string.match(queue, ':([^:]*)$')
      heads[#heads + 1] = job
    end
  end
  return heads
end

local function choose_model(heads)
  local overdue, oldest_warm, oldest
  for _, job in ipairs(heads) do
    if not oldest or job.since < oldest.since then oldest = job end
    if warm[job.model] and (not oldest_warm or job.since < oldest_warm.since) then oldest_warm = job end
  end
  if arguments.settled and oldest and started - oldest.since > arguments.overdue_seconds then overdue = oldest end
  local chosen = overdue or oldest_warm or oldest
  return chosen and chosen.model
end

-- The heads of one model's queues; the owner who has waited longest since the last turn comes first.
local function in_turn(heads, model)
  local own = {}
  for _, job in ipairs(heads) do
    if job.model == model then
      job.turn = tonumber(redis.call('HGET', KEY.owner_turns, job.owner) or 0)
      own[#own + 1] = job
    end
  end
  table.sort(own, function(a, b) return a.turn < b.turn or (a.turn == b.turn and a.since < b.since) end)
  return own
end

-- Adds a job's adapters to those of the claim; returns false, without adding any, if there would be too many.
local function admit(adapters, distinct)
  local new, count = {}, distinct.count
  for _, adapter in ipairs(cjson.decode(adapters)) do
    if not distinct.names[adapter[1]] and not new[adapter[1]] then
      new[adapter[1]], count = true, count + 1
    end
  end
  -- The first job may have more than `max_adapters`.
  if distinct.count > 0 and count > distinct.count and count > arguments.max_adapters then return false end
  for name in pairs(new) do distinct.names[name] = true end
  distinct.count = count
  return true
end

-- Waiting jobs with the batch key of the first queue's head, which may run with it. Jobs with exactly the same adapters
-- come first, because a pipeline call with one set of adapters is fastest; the search ends when these fill `room`.
local function companions(queues, key, adapters, room)
  local same_adapters, others, scanned = {}, {}, 0
  for _, waiting in ipairs(queues) do
    for _, id in ipairs(redis.call('LRANGE', KEY.rq_queue .. waiting.queue, 0, arguments.scan_limit - 1)) do
      if room <= 0 or scanned >= arguments.scan_limit then break end
      scanned = scanned + 1
      local job = redis.call('HMGET', job_key(id), 'state', 'batch_key', 'solo', 'num_images', 'pixels', 'adapters')
      if id ~= queues[1].id and job[1] == 'queued' and job[2] == key and not job[3] then
        local companion = { id = id, queue = waiting.queue, images = tonumber(job[4]), pixels = tonumber(job[5]),
                            adapters = job[6] or '[]' }
        local list = companion.adapters == adapters and same_adapters or others
        list[#list + 1] = companion
        if list == same_adapters and companion.images <= room then room = room - companion.images end
      end
    end
  end
  for _, companion in ipairs(others) do same_adapters[#same_adapters + 1] = companion end
  return same_adapters
end

-- The first queue's head and the jobs that run with it, and whether no more can join.
local function gather(queues)
  local first = redis.call('HMGET', job_key(queues[1].id), 'batch_key', 'solo', 'num_images', 'pixels', 'adapters')
  local key = first[2] and '' or first[1] or ''
  local jobs = { { id = queues[1].id, queue = queues[1].queue } }
  local images, pixels, distinct = tonumber(first[3]), tonumber(first[4]), { count = 0, names = {} }
  if key == '' or not arguments.batching then return jobs, true end
  local max_pixels = math.min(arguments.max_pixels, arguments.model_pixels[queues[1].model] or arguments.max_pixels)
  local adapters = first[5] or '[]'
  admit(adapters, distinct)
  for _, job in ipairs(companions(queues, key, adapters, arguments.max_images - images)) do
    local fits = images + job.images <= arguments.max_images and pixels + job.pixels <= max_pixels
    if fits and admit(job.adapters, distinct) then
      jobs[#jobs + 1] = job
      images, pixels = images + job.images, pixels + job.pixels
    end
  end
  return jobs, images >= arguments.max_images
end

local function lease(jobs)
  local claimed = {}
  for index, job in ipairs(jobs) do
    local execution, key = arguments.executions[index], job_key(job.id)
    redis.call('LREM', KEY.rq_queue .. job.queue, 1, job.id)
    redis.call('ZADD', KEY.leases, stamp(started + arguments.lease_seconds), job.id)
    -- Scored +inf in RQ's registry, so that RQ's own clean-up never touches our leases.
    redis.call('ZADD', KEY.rq_started .. job.queue, '+inf', job.id .. ':' .. execution)
    redis.call('HSET', rq_key(job.id), 'status', 'started', 'worker_name', arguments.worker)
    enter(job.id, 'running')
    redis.call('HSET', key, 'lease', execution, 'worker', arguments.worker, 'started_at', stamp(started))
    local attempt = redis.call('HINCRBY', key, 'attempts', 1)
    emit(job.id, 'started', { attempt = attempt, worker = arguments.worker })
    claimed[index] = { job.id, execution }
  end
  return claimed
end

local function ids_of(jobs)
  local ids = {}
  for index, job in ipairs(jobs) do ids[index] = job.id end
  return ids
end

for _, tier in ipairs({ 'high', 'normal', 'low' }) do
  while true do
    local heads = heads_of(tier)
    local model = choose_model(heads)
    if not model then break end
    local queues = in_turn(heads, model)
    local unready = ready and first_of(queues[1].needs, ready, false)
    if unready then return cjson.encode({ unready = unready }) end
    local jobs, full = gather(queues)
    if arguments.peek then return cjson.encode(ids_of(jobs)) end
    local batchable = redis.call('HGET', job_key(jobs[1].id), 'batch_key') ~= ''
    local young = started - queues[1].since < arguments.batch_wait_seconds
    if full or not (arguments.batching and batchable and young) then
      redis.call('HSET', KEY.owner_turns, queues[1].owner, redis.call('INCR', KEY.owner_turn))
      return cjson.encode(lease(jobs))
    end
    excluded[queues[1].queue] = true
    local left = arguments.batch_wait_seconds - (started - queues[1].since)
    wait_seconds = math.min(wait_seconds or left, left)
  end
end
return cjson.encode({ wait_seconds = wait_seconds })
