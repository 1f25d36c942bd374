-- What is served before a waiting job, in jobs and in seconds of worker time. It is read when somebody asks: nothing is
-- stored. The policy of workers may serve a short job earlier than that.

-- Waiting jobs whose predicted seconds are read for one answer; those of a queue beyond its share of them are taken to be as
-- long as the ones that are read. Of each queue at least one is read.
local MAX_READ_JOBS = 500

-- Number and seconds of the first `count` jobs of a queue; with `before`, of those among them that have waited longer.
local function first_jobs(queue, count, max_read, before)
  local number, seconds, read = 0, 0, math.min(count, max_read)
  local ids = read > 0 and redis.call('LRANGE', KEY.rq_queue .. queue, 0, read - 1) or {}
  for _, id in ipairs(ids) do
    local job = redis.call('HMGET', job_key(id), 'work', 'created_at')
    if before and (tonumber(job[2] or nil) or 0) > before then return number, seconds end
    number, seconds = number + 1, seconds + expected_seconds(job[1])
  end
  if number == 0 or number < read then return number, seconds end
  return count, seconds / number * count
end

-- Number of running jobs, and the seconds that they will still take.
local function running_jobs()
  local ids, seconds = redis.call('ZRANGE', KEY.leases, 0, -1), 0
  for _, id in ipairs(ids) do
    local job = redis.call('HMGET', job_key(id), 'work', 'progress')
    local fraction = tonumber(decode(job[2], {}).fraction) or 0
    seconds = seconds + expected_seconds(job[1]) * (1 - math.min(1, math.max(0, fraction)))
  end
  return #ids, seconds
end

-- The waiting queues of a tier: { queue, owner, length }, and how many jobs of each may be read.
local function queues_with_lengths(tier)
  local queues, pattern = {}, '^' .. KEY.job_queue .. tier .. ':.*:([^:]*)$'
  for _, queue in ipairs(redis.call('SMEMBERS', KEY.waiting .. tier)) do
    local owner = string.match(queue, pattern)
    local length = owner and redis.call('LLEN', KEY.rq_queue .. queue) or 0
    if length > 0 then queues[#queues + 1] = { queue = queue, owner = owner, length = length } end
  end
  return queues, math.max(1, math.floor(MAX_READ_JOBS / math.max(1, #queues)))
end

-- Jobs and seconds in its own tier before a job: the older ones of its owner, of all models, and as much of each other
-- owner as brings that owner's account to where this owner's will be then.
local function before_in_tier(job)
  local queues, max_read = queues_with_lengths(job.tier)
  local number, seconds, others = 0, 0, {}
  for _, row in ipairs(queues) do
    local count, added
    if row.queue == job.queue then
      count, added = first_jobs(row.queue, job.ahead, max_read)
    elseif row.owner == job.owner then
      count, added = first_jobs(row.queue, row.length, max_read, job.created_at)
    else
      local other = others[row.owner] or { number = 0, seconds = 0, older = false }
      others[row.owner] = other
      count, added = first_jobs(row.queue, row.length, max_read)
      other.number, other.seconds = other.number + count, other.seconds + added
      other.older = other.older or first_jobs(row.queue, 1, 1, job.created_at) > 0
      count, added = 0, 0
    end
    number, seconds = number + count, seconds + added
  end
  local turn = account_of(job.owner, job.tier) + seconds
  for owner, other in pairs(others) do
    local mean, lead = other.seconds / other.number, turn - account_of(owner, job.tier)
    -- Of equal accounts, the one whose job has waited longer is first.
    local turns = mean > 0 and lead / mean or (lead > 0 and other.number or 0)
    local count, nearest = math.ceil(turns), math.floor(turns + 0.5)
    -- Of equal accounts, the one whose job has waited longer is first. Their seconds were measured: they differ a little.
    if math.abs(turns - nearest) < 0.05 then count = nearest + (other.older and 1 or 0) end
    count = math.max(0, math.min(count, other.number))
    number, seconds = number + count, seconds + count * mean
  end
  return number, seconds
end

-- Jobs and seconds that wait in a tier.
local function all_in_tier(tier)
  local queues, max_read = queues_with_lengths(tier)
  local number, seconds = 0, 0
  for _, row in ipairs(queues) do
    local count, added = first_jobs(row.queue, row.length, max_read)
    number, seconds = number + count, seconds + added
  end
  return number, seconds
end

-- A waiting job's position: the jobs before it, its predicted seconds (empty before the first job like it was measured), and
-- the seconds until it begins. `job`: `ahead` in its queue, `queue`, `tier`, `owner`, `work`, `created_at`.
-- Without `ahead` the job does not wait: false.
local function position_after(job)
  if not job.ahead then return false end
  local workers = 0
  for _, worker in ipairs(redis.call('ZRANGE', KEY.workers, 0, -1)) do
    workers = workers + redis.call('EXISTS', KEY.worker .. worker)
  end
  local own_seconds = predicted_seconds(job.work)
  local number, seconds = before_in_tier(job)
  local higher_number, higher_seconds = 0, 0
  for _, tier in ipairs(TIERS) do
    if tier == job.tier then break end
    local count, added = all_in_tier(tier)
    higher_number, higher_seconds = higher_number + count, higher_seconds + added
  end
  -- While higher tiers always have jobs, a lower one gets its share of the time.
  local share = tonumber(redis.call('HGET', KEY.tiers, 'share') or DEFAULT_LOWER_TIER_SHARE)
  local served_higher = math.min(higher_seconds, (seconds + (own_seconds or 0)) * (1 - share) / share)
  if higher_seconds > 0 and served_higher < higher_seconds then
    higher_number = math.ceil(higher_number * served_higher / higher_seconds)
  end
  local running, running_seconds = running_jobs()
  local is_free = running + number + higher_number < workers
  local wait = is_free and 0 or (running_seconds + seconds + served_higher) / math.max(1, workers)
  return { number + higher_number, own_seconds and tostring(own_seconds) or '', tostring(wait) }
end
