-- Claims up to `max_images` images of waiting jobs with one batch key, in one step: list -> lease.
-- With `peek` it claims nothing, and only tells whom it would claim.
-- Order: tier by tier; within a tier an overdue job's model (once the resident one has had its time),
-- else a warm model, else the oldest; within a model, owners take turns. A model or ControlNet that has to be made
-- ready first is only named; jobs that need what is put off are passed over.
-- Cost: one look at the head of each waiting queue (tier × model × owner) and at `scan_limit` jobs.

local started = now()
local excluded, wait_seconds = {}, nil

local function set_of(names)
  local set = {}
  for _, name in ipairs(names) do set[name] = true end
  return set
end

local warm, put_off = set_of(arguments.warm), set_of(arguments.put_off)
local ready = arguments.ready and set_of(arguments.ready)

-- The first of a job's needs that is, or is not, in a set; nil where there is none.
local function first_of(needs, set, is_in)
  for _, name in ipairs(needs) do
    if (set[name] or false) == is_in then return name end
  end
end

-- First live job of a queue that is not put off, and whether any waits; drops ids whose job was cancelled or ended
-- meanwhile.
local function head(queue)
  local place = 0
  while place < arguments.scan_limit do
    local id = redis.call('LINDEX', KEY.rq_queue .. queue, place)
    if not id then break end
    local found = redis.call('HMGET', job_key(id), 'state', 'created_at', 'model', 'needs')
    local model, needs = found[3], found[4] and cjson.decode(found[4]) or { found[3] }
    if found[1] ~= 'queued' then
      redis.call('LREM', KEY.rq_queue .. queue, 1, id)
    elseif put_off[model] then
      return nil, true
    elseif first_of(needs, put_off, true) then
      place = place + 1
    else
      return { queue = queue, id = id, since = tonumber(found[2]), model = model, needs = needs }, true
    end
  end
  return nil, place > 0
end

-- Heads of all queues of a tier: { queue, id, since, model, needs, owner }.
local function heads_of(tier)
  local heads = {}
  for _, queue in ipairs(redis.call('SMEMBERS', KEY.waiting .. tier)) do
    local one, waits = head(queue)
    if not waits then
      redis.call('SREM', KEY.waiting .. tier, queue)
    elseif one and not excluded[queue] then
      one.owner = string.match(queue, ':([^:]*)$')
      heads[#heads + 1] = one
    end
  end
  return heads
end

local function choose_model(heads)
  local overdue, ready, oldest
  for _, one in ipairs(heads) do
    if not oldest or one.since < oldest.since then oldest = one end
    if warm[one.model] and (not ready or one.since < ready.since) then ready = one end
  end
  if arguments.settled and oldest and started - oldest.since > arguments.overdue_seconds then overdue = oldest end
  local chosen = overdue or ready or oldest
  return chosen and chosen.model
end

-- Heads of one model's queues, the owner first who was served longest ago.
local function in_turn(heads, model)
  local own = {}
  for _, one in ipairs(heads) do
    if one.model == model then
      one.turn = tonumber(redis.call('HGET', KEY.owner_turns, one.owner) or 0)
      own[#own + 1] = one
    end
  end
  table.sort(own, function(a, b) return a.turn < b.turn or (a.turn == b.turn and a.since < b.since) end)
  return own
end

-- Adds a job's adapters to the batch's; false, and nothing is added, where they would be too many.
local function admit(adapters, distinct)
  local new, count = {}, distinct.count
  for _, adapter in ipairs(cjson.decode(adapters)) do
    if not distinct.names[adapter[1]] and not new[adapter[1]] then
      new[adapter[1]], count = true, count + 1
    end
  end
  -- One job alone may have more of its own.
  if distinct.count > 0 and count > distinct.count and count > arguments.max_adapters then return false end
  for name in pairs(new) do distinct.names[name] = true end
  distinct.count = count
  return true
end

-- Waiting jobs that may share a call with the first queue's head, in its key; those with the very same adapters
-- come first, since a call with one set for all is the quickest. Once these fill it, no more are looked for.
local function companions(queues, key, adapters, room)
  local alike, others, looked = {}, {}, 0
  for _, one in ipairs(queues) do
    for _, id in ipairs(redis.call('LRANGE', KEY.rq_queue .. one.queue, 0, arguments.scan_limit - 1)) do
      if room <= 0 or looked >= arguments.scan_limit then break end
      looked = looked + 1
      local job = redis.call('HMGET', job_key(id), 'state', 'batch_key', 'solo', 'num_images', 'pixels', 'adapters')
      if id ~= queues[1].id and job[1] == 'queued' and job[2] == key and not job[3] then
        local found = { id = id, queue = one.queue, images = tonumber(job[4]), pixels = tonumber(job[5]),
                        adapters = job[6] or '[]' }
        local list = found.adapters == adapters and alike or others
        list[#list + 1] = found
        if list == alike and found.images <= room then room = room - found.images end
      end
    end
  end
  for _, one in ipairs(others) do alike[#alike + 1] = one end
  return alike
end

-- The first queue's head, and what shares its call.
local function gather(queues)
  local first = redis.call('HMGET', job_key(queues[1].id), 'batch_key', 'solo', 'num_images', 'pixels', 'adapters')
  local key = first[2] and '' or first[1] or ''
  local batch = { { id = queues[1].id, queue = queues[1].queue } }
  local images, pixels, distinct = tonumber(first[3]), tonumber(first[4]), { count = 0, names = {} }
  if key == '' or not arguments.batching then return batch, true end
  local max_pixels = math.min(arguments.max_pixels, arguments.model_pixels[queues[1].model] or arguments.max_pixels)
  local adapters = first[5] or '[]'
  admit(adapters, distinct)
  for _, one in ipairs(companions(queues, key, adapters, arguments.max_images - images)) do
    local fits = images + one.images <= arguments.max_images and pixels + one.pixels <= max_pixels
    if fits and admit(one.adapters, distinct) then
      batch[#batch + 1] = one
      images, pixels = images + one.images, pixels + one.pixels
    end
  end
  return batch, images >= arguments.max_images
end

local function lease(batch)
  local claimed = {}
  for index, one in ipairs(batch) do
    local execution, key = arguments.executions[index], job_key(one.id)
    redis.call('LREM', KEY.rq_queue .. one.queue, 1, one.id)
    redis.call('ZADD', KEY.leases, stamp(started + arguments.lease_seconds), one.id)
    -- Scored +inf in RQ's registry: RQ's own clean-up must never judge our leases.
    redis.call('ZADD', KEY.rq_started .. one.queue, '+inf', one.id .. ':' .. execution)
    redis.call('HSET', rq_key(one.id), 'status', 'started', 'worker_name', arguments.worker)
    enter(one.id, 'running')
    redis.call('HSET', key, 'lease', execution, 'worker', arguments.worker, 'started_at', stamp(started))
    local attempt = redis.call('HINCRBY', key, 'attempts', 1)
    emit(one.id, 'started', { attempt = attempt, worker = arguments.worker })
    claimed[index] = { one.id, execution }
  end
  return claimed
end

local function ids_of(batch)
  local ids = {}
  for index, one in ipairs(batch) do ids[index] = one.id end
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
    local batch, full = gather(queues)
    if arguments.peek then return cjson.encode(ids_of(batch)) end
    local batchable = redis.call('HGET', job_key(batch[1].id), 'batch_key') ~= ''
    local young = started - queues[1].since < arguments.batch_wait_seconds
    if full or not (arguments.batching and batchable and young) then
      redis.call('HSET', KEY.owner_turns, queues[1].owner, redis.call('INCR', KEY.owner_turn))
      return cjson.encode(lease(batch))
    end
    excluded[queues[1].queue] = true
    local left = arguments.batch_wait_seconds - (started - queues[1].since)
    wait_seconds = math.min(wait_seconds or left, left)
  end
end
return cjson.encode({ wait_seconds = wait_seconds })
