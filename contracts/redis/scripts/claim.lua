-- Leases waiting jobs with the same batch key to a worker, up to `max_images` images.
-- With `peek` it leases nothing and returns the ids of the jobs that it would lease, and what others lack that could run
-- with them.
-- Order: by tier, except that a lower tier goes first once it is owed the seconds of its next job, before owners who have
-- used more; within a tier by owners' accounts (accounts.lua), then by age. The first job whose model is warm, or that is overdue (if
-- `settled`), goes before jobs of models that would have to be loaded. If the next job needs something (`needs`: models,
-- ControlNets, LoRAs) that is not in `ready`, returns only the names of that. Jobs that need something in `deferred` are skipped.
-- Cost: reads the names of a tier's waiting queues (model x owner) and the accounts; the heads of up to `scan_limit`
-- queues whose owners' accounts are equal, and of the queues before the first warm or overdue one; and up to
-- `scan_limit` jobs to run together. While something is deferred, also the jobs that wait for it before the first that does
-- not, up to MAX_PASSED_OVER of each queue.

write_even_if_full()
if not arguments.peek and redis.call('HGET', KEY.tiers, 'share') ~= tostring(arguments.lower_tier_share) then
  redis.call('HSET', KEY.tiers, 'share', tostring(arguments.lower_tier_share))
end
local started = now()
local excluded, wait_seconds = {}, nil
-- What jobs lack that could run with the next one.
local lacking = {}

local function set_of(names)
  local set = {}
  for _, name in ipairs(names) do set[name] = true end
  return set
end

local warm, deferred = set_of(arguments.warm), set_of(arguments.deferred)
local ready = arguments.ready and set_of(arguments.ready)

-- Number fields of a job; 0 or 1 where another release left one out. A job with an unreadable record is leased too: the
-- worker that reads it ends it.
local function number(field, default) return tonumber(field or nil) or default end

-- The first of a job's needs that is in a set (`is_in`), or is not in it; nil if there is none.
local function first_of(needs, set, is_in)
  for _, name in ipairs(needs) do
    if (set[name] or false) == is_in then return name end
  end
end

-- Those of a job's needs that are not in a set.
local function missing_from(set, needs)
  local missing = {}
  for _, name in ipairs(needs) do
    if not set[name] then missing[#missing + 1] = name end
  end
  return missing
end

-- Whether everything that a job needs can be used now.
local function can_run(needs)
  return not first_of(needs, deferred, true) and not (ready and first_of(needs, ready, false))
end

-- Whether a job exists in no state that this release knows.
local function is_unknown(id, state)
  return state ~= 'running' and not RQ_STATUS[state] and redis.call('HEXISTS', job_key(id), 'queue') == 1
end

-- Jobs of a queue whose needs are deferred are passed over up to this number: others must not wait behind them.
local MAX_PASSED_OVER = 2000

-- The first waiting job of a queue that is not deferred, and whether any job waits. Removes ids of jobs that are no
-- longer queued.
local function head(queue)
  local passed_over = 0
  while passed_over < MAX_PASSED_OVER do
    -- One id as long as the first job will do, as is usual.
    local last = passed_over == 0 and 0 or passed_over + arguments.scan_limit
    local ids = redis.call('LRANGE', KEY.rq_queue .. queue, passed_over, last)
    if #ids == 0 then break end
    for _, id in ipairs(ids) do
      local job = redis.call('HMGET', job_key(id), 'state', 'created_at', 'model', 'needs')
      local model = text(job[3])
      local needs = strings(job[4], { model })
      if job[1] ~= 'queued' and not is_unknown(id, job[1]) then
        redis.call('LREM', KEY.rq_queue .. queue, 1, id)
      elseif deferred[model] then
        return nil, true
      elseif first_of(needs, deferred, true) then
        passed_over = passed_over + 1
      else
        return { queue = queue, id = id, since = number(job[2], 0), model = model, needs = needs }, true
      end
    end
  end
  return nil, passed_over > 0
end

-- The waiting queues of a tier whose models are not deferred, by their owners' accounts: { queue, model, owner, account }.
local function queues_of(tier)
  local of_owner, queues = {}, {}
  local pattern = '^' .. KEY.job_queue .. tier .. ':(.*):([^:]*)$'
  for _, queue in ipairs(redis.call('SMEMBERS', KEY.waiting .. tier)) do
    local model, owner = string.match(queue, pattern)
    if model and not deferred[model] then
      local own = of_owner[owner] or {}
      own[#own + 1] = { queue = queue, model = model, owner = owner }
      of_owner[owner] = own
    end
  end
  local accounts = redis.call('ZRANGE', KEY.accounts .. tier, 0, -1, 'WITHSCORES')
  for index = 1, #accounts, 2 do
    for _, queue in ipairs(of_owner[accounts[index]] or {}) do
      queue.account = tonumber(accounts[index + 1])
      queues[#queues + 1] = queue
    end
    of_owner[accounts[index]] = nil
  end
  -- Owners without an account have jobs that an earlier release queued.
  for _, own in pairs(of_owner) do
    for _, queue in ipairs(own) do
      queue.account = floor_of(tier)
      table.insert(queues, 1, queue)
    end
  end
  return queues
end

-- The heads of the queues whose accounts equal that of queues[index], the oldest first; and the index of the next queue.
-- Of more than `scan_limit` such queues, those without a head aside, the others are passed over this time.
local function equal_heads(queues, index, tier)
  local account, heads = queues[index].account, {}
  while queues[index] and queues[index].account == account do
    local queue = queues[index].queue
    if #heads < arguments.scan_limit and not excluded[queue] then
      local job, waits = head(queue)
      if not waits then redis.call('SREM', KEY.waiting .. tier, queue) end
      if job then
        job.owner = queues[index].owner
        heads[#heads + 1] = job
      end
    end
    index = index + 1
  end
  table.sort(heads, function(a, b) return a.since < b.since or (a.since == b.since and a.id < b.id) end)
  return heads, index
end

-- The job whose turn it is: see the order above.
local function next_job(queues, tier)
  local first, index = nil, 1
  while queues[index] do
    local heads
    heads, index = equal_heads(queues, index, tier)
    for _, job in ipairs(heads) do
      local overdue = arguments.settled and started - job.since > arguments.overdue_seconds
      if warm[job.model] or overdue then return job end
      first = first or job
    end
  end
  return first
end

-- Adds a job's adapters to those of the claim; returns false, without adding any, if there would be too many.
local function admit(adapters, distinct)
  local new, count = {}, distinct.count
  for _, adapter in ipairs(decode(adapters, {})) do
    local name = type(adapter) == 'table' and adapter[1] or ''
    if not distinct.names[name] and not new[name] then
      new[name], count = true, count + 1
    end
  end
  -- The first job may have more than `max_adapters`.
  if distinct.count > 0 and count > distinct.count and count > arguments.max_adapters then return false end
  for name in pairs(new) do distinct.names[name] = true end
  distinct.count = count
  return true
end

-- Waiting jobs with the batch key of the first job, which may run with it: of its own queue, then of others by account.
-- Their LoRAs may be others, which must be ready too.
-- Jobs with exactly the same adapters come first, because a pipeline call with one set of adapters is fastest; the search
-- ends when these fill `room`.
local function companions(first, queues, key, adapters, room)
  local same_adapters, others, scanned = {}, {}, 0
  local function scan(queue)
    for _, id in ipairs(redis.call('LRANGE', KEY.rq_queue .. queue, 0, arguments.scan_limit - 1)) do
      if room <= 0 or scanned >= arguments.scan_limit then break end
      scanned = scanned + 1
      local job = redis.call('HMGET', job_key(id), 'state', 'batch_key', 'solo', 'num_images', 'pixels', 'adapters',
                             'needs')
      local suits = id ~= first.id and job[1] == 'queued' and job[2] == key and not job[3]
      local needs = suits and strings(job[7], { first.model })
      if suits and not can_run(needs) then
        for _, name in ipairs(ready and missing_from(ready, needs) or {}) do lacking[#lacking + 1] = name end
      elseif suits then
        local companion = { id = id, queue = queue, images = number(job[4], 1), pixels = number(job[5], 0),
                            adapters = job[6] or '[]' }
        local list = companion.adapters == adapters and same_adapters or others
        list[#list + 1] = companion
        if list == same_adapters and companion.images <= room then room = room - companion.images end
      end
    end
  end
  scan(first.queue)
  for _, other in ipairs(queues) do
    if room <= 0 or scanned >= arguments.scan_limit then break end
    if other.model == first.model and other.queue ~= first.queue then scan(other.queue) end
  end
  for _, companion in ipairs(others) do same_adapters[#same_adapters + 1] = companion end
  return same_adapters
end

-- A job and the jobs that run with it, and whether no more can join.
local function gather(job, queues)
  local first = redis.call('HMGET', job_key(job.id), 'batch_key', 'solo', 'num_images', 'pixels', 'adapters')
  local key = first[2] and '' or first[1] or ''
  local images, pixels, distinct = number(first[3], 1), number(first[4], 0), { count = 0, names = {} }
  local jobs = { { id = job.id, queue = job.queue, images = images } }
  if key == '' or not arguments.batching then return jobs, true end
  local max_pixels = math.min(arguments.max_pixels, arguments.model_pixels[job.model] or arguments.max_pixels)
  local adapters = first[5] or '[]'
  admit(adapters, distinct)
  for _, other in ipairs(companions(job, queues, key, adapters, arguments.max_images - images)) do
    local fits = images + other.images <= arguments.max_images and pixels + other.pixels <= max_pixels
    if fits and admit(other.adapters, distinct) then
      jobs[#jobs + 1] = other
      images, pixels = images + other.images, pixels + other.pixels
    end
  end
  return jobs, images >= arguments.max_images
end

local function expected_seconds_of(id) return expected_seconds(redis.call('HGET', job_key(id), 'work')) end

-- Charges the owners of jobs that share a pipeline call; each job has its images' share of the time that the call takes.
local function charge_owners(jobs)
  local images = 0
  for _, job in ipairs(jobs) do images = images + job.images end
  raise_floors()
  for _, job in ipairs(jobs) do
    local found = redis.call('HMGET', job_key(job.id), 'owner', 'priority')
    local seconds = expected_seconds_of(job.id)
    redis.call('HSET', job_key(job.id), 'charged', seconds, 'call_share', job.images / images)
    charge(text(found[1]), text(found[2]), seconds)
  end
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
    redis.call('HDEL', key, 'preparing', 'retrying_since')
    emit(job.id, 'started', { attempt = attempt, worker = arguments.worker })
    claimed[index] = { job.id, execution }
  end
  charge_owners(jobs)
  return claimed
end

local function ids_of(jobs)
  local ids = {}
  for index, job in ipairs(jobs) do ids[index] = job.id end
  return ids
end

-- The answer to the worker where this tier has jobs for it; nil otherwise.
local function claim_from(tier)
  local queues = queues_of(tier)
  while true do
    local job = next_job(queues, tier)
    if not job then return nil end
    local unready = ready and missing_from(ready, job.needs) or {}
    if unready[1] then return { unready = unready } end
    local jobs, full = gather(job, queues)
    if arguments.peek then return { ids = ids_of(jobs), unready = lacking } end
    local batchable = text(redis.call('HGET', job_key(job.id), 'batch_key')) ~= ''
    local left = arguments.batch_wait_seconds - (started - job.since)
    if full or not (arguments.batching and batchable and left > 0) then return lease(jobs) end
    excluded[job.queue] = true
    wait_seconds = math.min(wait_seconds or left, left)
  end
end

-- Whether a lower tier goes before a higher one: it is owed the seconds of its next job, whose owner has used less than
-- the owner who is next in the higher tier. So those who use a high priority rarely do not wait for the debts of others.
local function overtakes(lower, higher)
  local owed = owed_to(lower)
  local job = owed > 0 and next_job(queues_of(lower), lower)
  if not job or expected_seconds_of(job.id) > owed then return false end
  local other = next_job(queues_of(higher), higher)
  return other and account_of(job.owner, lower) < account_of(other.owner, lower)
end

for index, tier in ipairs(TIERS) do
  for lower = index + 1, #TIERS do
    local answer = overtakes(TIERS[lower], tier) and claim_from(TIERS[lower])
    if answer then return cjson.encode(answer) end
  end
  local answer = claim_from(tier)
  if answer then return cjson.encode(answer) end
end
return cjson.encode({ wait_seconds = wait_seconds })
