-- Leases the next waiting job to a worker. Returns, as JSON, its `id` and whether it must run `alone`; or only `unready`,
-- the names of what the next job lacks; or only `must_run_alone`, where it does and the worker has other jobs; or nothing.
-- With `peek` it leases nothing and returns the `ids` of the next jobs, up to `peek`, that lack nothing, and in `unready`
-- what the others lack.
-- Order: by tier, except that a lower tier goes first once it is owed the seconds of its next job, before owners who have
-- used more; within a tier by owners' accounts (accounts.lua), then as they were accepted. The first job whose model is warm, or that is
-- overdue (if `settled`), goes before jobs of models that would have to be loaded. Tiers without `room` are skipped, and
-- so are jobs that need something (`needs`: models, ControlNets, LoRAs) in `deferred`. Something that the next job needs
-- and that is not in `ready` is unready.
-- A worker that an operator has drained gets nothing, and of models that are paused nobody gets a job. While RQ's workers
-- are suspended, it returns only `suspended`.
-- A worker with jobs in flight leaves waiting jobs to workers that have fewer. For one that must run alone it claims
-- nothing until its own have ended, and the others with jobs in flight pass the job over meanwhile.
-- Cost: reads the names of a tier's waiting queues (model x owner) and the accounts; the heads of up to `scan_limit`
-- queues whose owners' accounts are equal, and of the queues before the first warm or overdue one. While something is
-- deferred, also the jobs that wait for it before the first that does not, up to MAX_PASSED_OVER of each queue; while
-- others have fewer jobs, as many jobs as these could take.

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

-- The other workers that claimed, or tried to, not long ago: what each has in flight, what it can take and for how many
-- jobs it has room. Forgets the others.
local function claiming_workers()
  local others, entries = {}, redis.call('HGETALL', KEY.claimers)
  for index = 1, #entries, 2 do
    local entry = decode(entries[index + 1], {})
    local function table_of(field) return type(entry[field]) == 'table' and entry[field] or {} end
    if number(entry.expires_at, 0) <= started then
      redis.call('HDEL', KEY.claimers, entries[index])
    elseif entries[index] ~= arguments.worker then
      others[#others + 1] = {
        in_flight = number(entry.in_flight, 0), room = table_of('room'), taken = 0,
        deferred = set_of(table_of('deferred')), warm = set_of(table_of('warm')),
      }
    end
  end
  return others
end

-- Whether another worker should take a job rather than this one: it has fewer in flight, even with those that it was left
-- before, and the model is warm there. One without jobs may load the model for one job.
local function should_take(other, job, tier)
  if needs_any(job.needs, other.deferred) or number(other.room[tier], 0) <= other.taken then return false end
  if other.in_flight == 0 and other.taken == 0 then return true end
  return warm[job.model] and other.warm[job.model] and other.in_flight + other.taken < arguments.in_flight
end

-- Leaves a job to another worker; false if none should take it.
local function leave(others, job, tier)
  for _, other in ipairs(others) do
    if should_take(other, job, tier) then
      other.taken = other.taken + 1
      return true
    end
  end
  return false
end

-- Leaves a job that must run alone to a worker without jobs; false if there is none.
local function leave_alone(others, job)
  for _, other in ipairs(others) do
    if other.in_flight == 0 and other.taken == 0 and not needs_any(job.needs, other.deferred) then
      other.taken = 1
      return true
    end
  end
  return false
end

-- The most jobs that a claim leaves to others; each is looked up, and so are those before it in its queue.
local MAX_LEFT = 32

-- Whether others should take every job that this worker could take.
local function are_enough(others)
  local enough, left = true, 0
  for _, tier in ipairs(TIERS) do
    for _, queue in ipairs(has_room(tier) and queues_of(tier) or {}) do
      local job = enough and head(queue.queue)
      while job and enough do
        left = left + 1
        enough, passed[job.id] = left <= MAX_LEFT and leave(others, job, tier), true
        job = head(queue.queue)
      end
    end
  end
  passed = {}
  for _, other in ipairs(others) do other.taken = 0 end
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
  local others = arguments.in_flight > 0 and claiming_workers() or {}
  if others[1] and are_enough(others) then return nil end
  local job = next_of_all()
  while job and job.alone and arguments.in_flight > 0 and (leave_alone(others, job) or is_awaited_by_other(job)) do
    passed[job.id] = true
    job = next_of_all()
  end
  return job
end

-- Tells the other workers for a while what this one has in flight, and what it could take besides.
local function note_claiming(claimed)
  local room = {}
  for tier, jobs in pairs(arguments.room) do room[tier] = number(jobs, 0) - claimed end
  redis.call('HSET', KEY.claimers, arguments.worker, cjson.encode({
    expires_at = started + arguments.claiming_seconds, in_flight = arguments.in_flight + claimed,
    room = room, deferred = arguments.deferred, warm = arguments.warm,
  }))
end

local function claim()
  local job = choose()
  if not job then
    if arguments.in_flight == 0 then claiming_workers() end
    note_claiming(0)
    return {}
  end
  local unready = ready and missing_from(ready, job.needs) or {}
  if unready[1] or job.alone then
    local was_claiming = redis.call('HDEL', KEY.claimers, arguments.worker) == 1
    if unready[1] then
      note_waiting(job.id, job.needs)
      -- Busy workers, which may have what it needs, have left the job to this one.
      if was_claiming then redis.call('PUBLISH', KEY.wake_jobs, job.id) end
      return { unready = unready }
    end
    return arguments.in_flight > 0 and await(job) or lease(job)
  end
  note_claiming(1)
  return lease(job)
end

if not arguments.peek and redis.call('EXISTS', KEY.rq_suspended) == 1 then return cjson.encode({ suspended = true }) end
if stands_still then return cjson.encode(arguments.peek and { ids = {}, unready = {} } or {}) end
return cjson.encode(arguments.peek and peek() or claim())
