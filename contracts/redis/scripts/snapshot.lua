-- What `contracts/forecast` estimates times from, as JSON: jobs that run and wait, owners' accounts, live workers, measured
-- costs. Bounded: so many running jobs; of each tier so many waiting ones, in so many queues.
local function queue_snapshot()
  local MAX_RUNNING, MAX_WAITING, MAX_QUEUES = 512, 200, 50
  local time = now()
  local paces, models = {}, {}

  local function note_work(text_of_work)
    local work = decode(text_of_work, {})
    if type(work.pace) == 'string' then paces[work.pace] = true end
    if type(work.model) == 'string' then models[work.model] = true end
  end

  local function job_of(id, names)
    local found, job = redis.call('HMGET', job_key(id), unpack(names)), { id = id }
    for index, name in ipairs(names) do job[name] = found[index] or nil end
    note_work(job.work)
    return job
  end

  local function running_jobs()
    local running, leases = {}, redis.call('ZRANGE', KEY.leases, 0, MAX_RUNNING - 1, 'WITHSCORES')
    for index = 1, #leases, 2 do
      local job = job_of(leases[index], { 'work', 'progress', 'worker', 'owner', 'priority', 'created_at', 'deadline_at', 'solo' })
      job.tier, job.lease_until, job.worker = job.priority, tonumber(leases[index + 1]), text(job.worker)
      running[#running + 1] = job
    end
    return running
  end

  -- The queues of a tier with their first jobs, added to `queues`; returns the tier's figures.
  local function read_tier(tier, queues)
    local pattern, names, accounts = '^' .. KEY.job_queue .. tier .. ':(.*):([^:]*)$', {}, {}
    for _, name in ipairs(redis.call('SMEMBERS', KEY.waiting .. tier)) do
      if #names < MAX_QUEUES and redis.call('LLEN', KEY.rq_queue .. name) > 0 then names[#names + 1] = name end
    end
    local waiting = load_of(tier)
    local each = waiting <= MAX_WAITING and MAX_WAITING or math.max(1, math.floor(MAX_WAITING / math.max(1, #names)))
    for _, name in ipairs(names) do
      local model, owner = string.match(name, pattern)
      local queue = { tier = tier, owner = text(owner), length = redis.call('LLEN', KEY.rq_queue .. name), jobs = {} }
      for _, id in ipairs(redis.call('LRANGE', KEY.rq_queue .. name, 0, each - 1)) do
        local job = job_of(id, { 'work', 'created_at', 'deadline_at', 'preparing', 'solo' })
        job.tier, job.owner = tier, queue.owner
        queue.jobs[#queue.jobs + 1] = job
      end
      if model then models[model] = true end
      accounts[queue.owner] = account_of(queue.owner, tier)
      queues[#queues + 1] = queue
    end
    return { floor = floor_of(tier), owed = owed_to(tier), waiting = waiting, accounts = accounts }
  end

  local function live_workers()
    local workers = {}
    for _, id in ipairs(redis.call('ZRANGE', KEY.workers, 0, -1)) do
      if redis.call('EXISTS', KEY.worker .. id) == 1 then
        local is_drained = redis.call('HEXISTS', KEY.drained, id) == 1 or nil
        workers[#workers + 1] = { id = id, state = redis.call('GET', KEY.worker_state .. id) or nil, drained = is_drained }
      end
    end
    return workers
  end

  local queues, tiers = {}, {}
  local running = running_jobs()
  for _, tier in ipairs(TIERS) do tiers[tier] = read_tier(tier, queues) end
  return cjson.encode({
    now = stamp(time), running = running, queues = queues, tiers = tiers, workers = live_workers(),
    share = tonumber(redis.call('HGET', KEY.tiers, 'share') or DEFAULT_LOWER_TIER_SHARE),
    overdue_seconds = tonumber(redis.call('HGET', KEY.tiers, 'overdue') or DEFAULT_OVERDUE_SECONDS),
    paused = redis.call('HKEYS', KEY.paused), measured = measured_costs(paces, models),
  })
end
