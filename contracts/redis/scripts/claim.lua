-- Leases the next waiting job to a worker. Returns, as JSON, its `id` and whether it must run `alone`; or only `unready`,
-- the names of what the next job lacks; or only `must_run_alone`, where it does and the worker has other jobs; or nothing.
-- With `peek` it leases nothing and returns the `ids` of the next jobs, up to `peek`, that lack nothing, and in `unready`
-- what the others lack.
-- Order: by tier, except that a lower tier goes first once it is owed the seconds of its next job, before owners who have
-- used more; within a tier by owners' accounts (accounts.lua), then as they were accepted. The first job whose model is warm, or that is
-- overdue (if `settled`), goes before jobs of models that would have to be loaded. Tiers without `room` are skipped, and
-- so are jobs that need something (`needs`: models, ControlNets, LoRAs) in `deferred`. Something that the next job needs
-- and that is not in `ready` is unready.
-- A worker that an operator has drained gets nothing, and of models that are paused nobody gets a job.
-- A worker with jobs in flight leaves waiting jobs to workers that have none. For one that must run alone it claims
-- nothing until its own have ended, and the others with jobs in flight pass the job over meanwhile.
-- Cost: reads the names of a tier's waiting queues (model x owner) and the accounts; the heads of up to `scan_limit`
-- queues whose owners' accounts are equal, and of the queues before the first warm or overdue one. While something is
-- deferred, also the jobs that wait for it before the first that does not, up to MAX_PASSED_OVER of each queue; while
-- workers are idle, as many jobs as these.

write_even_if_full()
local settings = { share = tostring(arguments.lower_tier_share), overdue = tostring(arguments.overdue_seconds) }
for name, value in pairs(settings) do
  if not arguments.peek and redis.call('HGET', KEY.tiers, name) ~= value then redis.call('HSET', KEY.tiers, name, value) end
end
local started = now()
-- Jobs that this call passes over, and the seconds by which it takes accounts to be larger, owner -> seconds: of jobs
-- that a peek has found, as if they had been claimed.
local passed, assumed = {}, {}

local function set_of(names)
  local set = {}
  for _, name in ipairs(names) do set[name] = true end
  return set
end

local warm, deferred = set_of(arguments.warm), set_of(arguments.deferred)
for _, model in ipairs(redis.call('HKEYS', KEY.paused)) do deferred[model] = true end
local stands_still = deferred['*'] or redis.call('HEXISTS', KEY.drained, arguments.worker) == 1
local ready = arguments.ready and set_of(arguments.ready)

-- Number fields of a job; 0 or 1 where another release left one out. A job with an unreadable record is leased too: the
-- worker that reads it ends it.
local function number(field, default) return tonumber(field or nil) or default end

-- Whether one of a job's needs is in a set.
local function needs_any(needs, set)
  for _, name in ipairs(needs) do
    if set[name] then return true end
  end
  return false
end

-- Those of a job's needs that are not in a set.
local function missing_from(set, needs)
  local missing = {}
  for _, name in ipairs(needs) do
    if not set[name] then missing[#missing + 1] = name end
  end
  return missing
end

local function has_room(tier) return number(arguments.room[tier], 0) > 0 end

-- Whether a job exists in no state that this release knows.
local function is_unknown(id, state)
  return state ~= 'running' and not RQ_STATUS[state] and redis.call('HEXISTS', job_key(id), 'queue') == 1
end

-- Jobs of a queue whose needs are deferred are passed over up to this number: others must not wait behind them.
local MAX_PASSED_OVER = 2000

-- Enters a job that waits for something, and that an earlier release queued, in the indexes of what it needs.
local function note_waiting(id, needs)
  if needs[1] and not redis.call('ZSCORE', KEY.needed .. needs[1], id) then index_needs(id) end
end

-- The first waiting job of a queue that is neither deferred nor passed over, and whether any job waits. Removes ids of
-- jobs that are no longer queued.
local function head(queue)
  local passed_over = 0
  while passed_over < MAX_PASSED_OVER do
    -- One id as long as the first job will do, as is usual.
    local last = passed_over == 0 and 0 or passed_over + arguments.scan_limit
    local ids = redis.call('LRANGE', KEY.rq_queue .. queue, passed_over, last)
    if #ids == 0 then break end
    for _, id in ipairs(ids) do
      local job = redis.call('HMGET', job_key(id), 'state', 'created_at', 'model', 'needs', 'solo', 'sequence')
      local model = text(job[3])
      local needs = strings(job[4], { model })
      if job[1] ~= 'queued' and not is_unknown(id, job[1]) then
        redis.call('LREM', KEY.rq_queue .. queue, 1, id)
      elseif deferred[model] then
        return nil, true
      elseif passed[id] or needs_any(needs, deferred) then
        note_waiting(id, needs)
        passed_over = passed_over + 1
      else
        local found = { queue = queue, id = id, since = number(job[2], 0), model = model, needs = needs }
        found.sequence = number(job[6], 0)  -- a job of an earlier release has none, and is older than those that do
        found.alone = job[5] and true or false
        return found, true
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
      queue.account = tonumber(accounts[index + 1]) + (assumed[queue.owner] or 0)
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
  if next(assumed) then table.sort(queues, function(a, b) return a.account < b.account end) end
  return queues
end

-- Whether a job was accepted before another: clocks may be set back, the sequence never.
local function is_older(a, b)
  if a.sequence ~= b.sequence then return a.sequence < b.sequence end
  return a.since < b.since or (a.since == b.since and a.id < b.id)
end

-- The heads of the queues whose accounts equal that of queues[index], the oldest first; and the index of the next queue.
-- Of more than `scan_limit` such queues, those without a head aside, the others are passed over this time.
local function equal_heads(queues, index, tier)
  local account, heads = queues[index].account, {}
  while queues[index] and queues[index].account == account do
    local queue = queues[index].queue
    if #heads < arguments.scan_limit then
      local job, waits = head(queue)
      if not waits then redis.call('SREM', KEY.waiting .. tier, queue) end
      if job then
        job.owner = queues[index].owner
        heads[#heads + 1] = job
      end
    end
    index = index + 1
  end
  table.sort(heads, is_older)
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

local function expected_seconds_of(id) return expected_seconds(redis.call('HGET', job_key(id), 'work')) end

local function charge_owner(job)
  local found = redis.call('HMGET', job_key(job.id), 'owner', 'priority')
  local seconds = expected_seconds_of(job.id)
  raise_floors()
  redis.call('HSET', job_key(job.id), 'charged', seconds)
  charge(text(found[1]), text(found[2]), seconds)
end

local function lease(job)
  local execution, key = arguments.execution, job_key(job.id)
  redis.call('LREM', KEY.rq_queue .. job.queue, 1, job.id)
  redis.call('ZADD', KEY.leases, stamp(started + arguments.lease_seconds), job.id)
  -- Scored +inf in RQ's registry, so that RQ's own clean-up never touches our leases.
  redis.call('ZADD', KEY.rq_started .. job.queue, '+inf', job.id .. ':' .. execution)
  redis.call('HSET', rq_key(job.id), 'status', 'started', 'worker_name', arguments.worker)
  enter(job.id, 'running')
  redis.call('HSET', key, 'lease', execution, 'worker', arguments.worker, 'started_at', stamp(started))
  local attempt = redis.call('HINCRBY', key, 'attempts', 1)
  redis.call('HDEL', key, 'preparing', 'retrying_since', 'awaited_by', 'awaited_until')
  emit(job.id, 'started', { attempt = attempt, worker = arguments.worker })
  charge_owner(job)
  return { id = job.id, alone = job.alone }
end

-- The job of a lower tier that goes before a higher one, if any: the tier is owed the seconds of its next job, whose owner
-- has used less than the owner who is next in the higher tier. So those who use a high priority rarely do not wait for
-- the debts of others.
local function overtaking(lower, higher)
  local owed = has_room(lower) and owed_to(lower) or 0
  local job = owed > 0 and next_job(queues_of(lower), lower)
  if not job or expected_seconds_of(job.id) > owed then return nil end
  local other = next_job(queues_of(higher), higher)
  local function used(owner, tier) return account_of(owner, tier) + (assumed[owner] or 0) end
  return other and used(job.owner, lower) < used(other.owner, higher) and job or nil
end

-- The next job in any tier with room.
local function next_of_all()
  for index, tier in ipairs(TIERS) do
    if has_room(tier) then
      local job
      for lower = index + 1, #TIERS do job = job or overtaking(TIERS[lower], tier) end
      job = job or next_job(queues_of(tier), tier)
      if job then return job end
    end
  end
end

local function peek()
  local ids, unready = {}, {}
  for _ = 1, arguments.peek do
    local job = next_of_all()
    if not job then break end
    local missing = ready and missing_from(ready, job.needs) or {}
    for _, name in ipairs(missing) do unready[#unready + 1] = name end
    if not missing[1] then ids[#ids + 1] = job.id end
    passed[job.id] = true
    assumed[job.owner] = (assumed[job.owner] or 0) + expected_seconds_of(job.id)
  end
  return { ids = ids, unready = unready }
end

-- The names of what each other worker cannot take for now, of those that found no job at their last claim, which was not
-- long ago. Forgets the others.
local function idle_workers()
  local idle, entries = {}, redis.call('HGETALL', KEY.idle_workers)
  for index = 1, #entries, 2 do
    local entry = decode(entries[index + 1], {})
    if number(entry.expires_at, 0) <= started then
      redis.call('HDEL', KEY.idle_workers, entries[index])
    elseif entries[index] ~= arguments.worker then
      idle[#idle + 1] = set_of(type(entry.deferred) == 'table' and entry.deferred or {})
    end
  end
  return idle
end

-- Leaves a job to an idle worker that can take it, which is then removed from the list; false if there is none.
local function leave_to(idle, job)
  for index, unusable in ipairs(idle) do
    if not needs_any(job.needs, unusable) then
      table.remove(idle, index)
      return true
    end
  end
  return false
end

-- Whether there is an idle worker for each job that this one could take.
local function are_enough(idle)
  local left, enough = { unpack(idle) }, true
  for _, tier in ipairs(TIERS) do
    for _, queue in ipairs(has_room(tier) and queues_of(tier) or {}) do
      local job = enough and head(queue.queue)
      while job and enough do
        enough, passed[job.id] = leave_to(left, job), true
        job = head(queue.queue)
      end
    end
  end
  passed = {}
  return enough
end

-- Whether another worker makes room for a job that must run alone.
local function is_awaited_by_other(job)
  local found = redis.call('HMGET', job_key(job.id), 'awaited_by', 'awaited_until')
  return found[1] and found[1] ~= arguments.worker and number(found[2], 0) > started
end

-- Claim nothing until the jobs in flight have ended; asked again and again, so that the note outlives its worker briefly.
local function await(job)
  redis.call('HSET', job_key(job.id), 'awaited_by', arguments.worker, 'awaited_until', stamp(started + arguments.lease_seconds))
  return { must_run_alone = true }
end

-- The next job for this worker.
local function choose()
  local idle = arguments.in_flight > 0 and idle_workers() or {}
  if idle[1] and are_enough(idle) then return nil end
  local job = next_of_all()
  while job and job.alone and arguments.in_flight > 0 and (leave_to(idle, job) or is_awaited_by_other(job)) do
    passed[job.id] = true
    job = next_of_all()
  end
  return job
end

-- Notes that no job waits for this worker, for a while.
local function note_idle()
  idle_workers()
  local entry = { expires_at = started + arguments.idle_seconds, deferred = arguments.deferred }
  redis.call('HSET', KEY.idle_workers, arguments.worker, cjson.encode(entry))
end

local function claim()
  local job = choose()
  if not job and arguments.in_flight == 0 then note_idle() end
  if not job then return {} end
  local was_idle = redis.call('HDEL', KEY.idle_workers, arguments.worker) == 1
  local unready = ready and missing_from(ready, job.needs) or {}
  if unready[1] then
    note_waiting(job.id, job.needs)
    -- Busy workers, which may have what it needs, have left the job to this one.
    if was_idle then redis.call('PUBLISH', KEY.wake_jobs, job.id) end
    return { unready = unready }
  end
  if job.alone and arguments.in_flight > 0 then return await(job) end
  return lease(job)
end

if stands_still then return cjson.encode(arguments.peek and { ids = {}, unready = {} } or {}) end
return cjson.encode(arguments.peek and peek() or claim())
