-- What is served before a waiting job, in jobs and in seconds of worker time. It is read when somebody asks: nothing is
-- stored. The policy of workers may serve a short job earlier than that.

-- Bounds of what is read for one answer, since every client that waits may ask: jobs of one set of queues, and queues of a
-- tier. Others are taken to be like those that are read.
local MAX_READ_JOBS, MAX_READ_QUEUES = 100, 50

-- Predicted seconds by a job's `work`: many jobs have the same.
local known_seconds = {}
local function seconds_of(work)
  known_seconds[text(work)] = known_seconds[text(work)] or expected_seconds(work)
  return known_seconds[text(work)]
end

-- Number and seconds of the first `count` jobs of a queue, and when its first one began to wait. With `before`, only of
-- those among them that have waited longer.
local function first_jobs(queue, count, max_read, before)
  local number, seconds, read, since = 0, 0, math.min(count, max_read), nil
  local ids = read > 0 and redis.call('LRANGE', KEY.rq_queue .. queue, 0, read - 1) or {}
  for _, id in ipairs(ids) do
    local job = redis.call('HMGET', job_key(id), 'work', 'created_at')
    local created_at = tonumber(job[2] or nil) or 0
    if before and created_at > before then return number, seconds, since end
    number, seconds, since = number + 1, seconds + seconds_of(job[1]), since or created_at
  end
  if number == 0 or number < read then return number, seconds, since end
  return count, seconds / number * count, since
end

-- Number of running jobs, the seconds that they will still take together, and those of the first to end, nil without any.
local function running_jobs()
  local ids, seconds, first = redis.call('ZRANGE', KEY.leases, 0, -1), 0, nil
  for _, id in ipairs(ids) do
    local job = redis.call('HMGET', job_key(id), 'work', 'progress')
    local fraction = tonumber(decode(job[2], {}).fraction) or 0
    local left = seconds_of(job[1]) * (1 - math.min(1, math.max(0, fraction)))
    seconds, first = seconds + left, math.min(first or left, left)
  end
  return #ids, seconds, first
end

-- The waiting queues of a tier: those of one owner; those of the others that are read, as { queue, owner }; how many of the
-- others there are for each that is read; and how many jobs of each of these may be read.
local function queues_in(tier, owner)
  local own, others, number, pattern = {}, {}, 0, '^' .. KEY.job_queue .. tier .. ':.*:([^:]*)$'
  for _, queue in ipairs(redis.call('SMEMBERS', KEY.waiting .. tier)) do
    local its_owner = string.match(queue, pattern)
    if its_owner == owner then
      own[#own + 1] = queue
    elseif its_owner then
      number = number + 1
      if #others < MAX_READ_QUEUES then others[#others + 1] = { queue = queue, owner = its_owner } end
    end
  end
  return own, others, number / math.max(1, #others), math.max(1, math.floor(MAX_READ_JOBS / math.max(1, #others)))
end

local function length_of(queue) return redis.call('LLEN', KEY.rq_queue .. queue) end

-- Jobs and seconds of another owner before this one's account has reached `turn`.
local function before_turn(other, turn, job)
  local mean, lead = other.seconds / other.number, turn - account_of(other.owner, job.tier)
  local turns = mean > 0 and lead / mean or (lead > 0 and other.number or 0)
  local count, nearest = math.ceil(turns), math.floor(turns + 0.5)
  -- Of equal accounts, the one whose job has waited longer is first. Their seconds were measured: they differ a little.
  if math.abs(turns - nearest) < 0.05 then count = nearest + (other.since <= job.created_at and 1 or 0) end
  count = math.max(0, math.min(count, other.number))
  return count, count * mean
end

-- Jobs and seconds in its own tier before a job: the older ones of its owner, of all models, and as much of each other
-- owner as brings that owner's account to where this owner's will be then.
local function before_in_tier(job)
  local own, others, weight, max_read = queues_in(job.tier, job.owner)
  local number, seconds, owners = 0, 0, {}
  for _, queue in ipairs(own) do
    local count, added
    if queue == job.queue then
      count, added = first_jobs(queue, job.ahead, MAX_READ_JOBS)
    else
      count, added = first_jobs(queue, length_of(queue), MAX_READ_JOBS, job.created_at)
    end
    number, seconds = number + count, seconds + added
  end
  for _, row in ipairs(others) do
    local count, added, since = first_jobs(row.queue, length_of(row.queue), max_read)
    if count > 0 then
      local other = owners[row.owner] or { owner = row.owner, number = 0, seconds = 0, since = since }
      owners[row.owner] = other
      other.number, other.seconds = other.number + count, other.seconds + added
      other.since = math.min(other.since, since)
    end
  end
  local turn = account_of(job.owner, job.tier) + seconds
  for _, other in pairs(owners) do
    local count, added = before_turn(other, turn, job)
    number, seconds = number + weight * count, seconds + weight * added
  end
  return math.floor(number + 0.5), seconds
end

-- Jobs and seconds in a higher tier before a job. Those of owners who have used more than its own are before it only
-- until its tier has got its share of the time, `limit_seconds` (see `overtakes` in claim.lua).
local function before_in_higher(tier, job, limit_seconds)
  local waiting, read, seconds, yielding = load_of(tier), 0, 0, 0
  if waiting <= 0 then return 0, 0 end
  local account = account_of(job.owner, job.tier)
  local _, queues, _, max_read = queues_in(tier)
  for _, row in ipairs(queues) do
    local count, added = first_jobs(row.queue, length_of(row.queue), max_read)
    read, seconds = read + count, seconds + added
    if account_of(row.owner, job.tier) > account then yielding = yielding + added end
  end
  if seconds == 0 then return waiting, 0 end
  local all = seconds / read * waiting
  local served = math.min(all, all * (1 - yielding / seconds) + limit_seconds)
  return math.ceil(waiting * served / all), served
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
  local share = tonumber(redis.call('HGET', KEY.tiers, 'share') or DEFAULT_LOWER_TIER_SHARE)
  local limit_seconds = share > 0 and (seconds + (own_seconds or 0)) * (1 - share) / share or math.huge
  for _, tier in ipairs(TIERS) do
    if tier == job.tier then break end
    local count, added = before_in_higher(tier, job, limit_seconds)
    number, seconds = number + count, seconds + added
  end
  local running, running_seconds = running_jobs()
  local is_free = running + number < workers
  local wait = is_free and 0 or (running_seconds + seconds) / math.max(1, workers)
  return { number, own_seconds and tostring(own_seconds) or '', tostring(wait) }
end
