-- How owners share the workers: in seconds of worker time, predicted when a job is claimed, corrected when it ends.
--
-- Each tier has a ledger of accounts, owner -> seconds. The owner with the smallest account is next in that tier. All
-- seconds are entered in all ledgers, so an owner who uses one tier waits longer in the others. An owner who begins to wait in
-- a tier starts at least at its floor, the smallest account of an active owner at the last claim: time without jobs earns
-- nothing. A larger account stays until the others have caught up: an owner cannot lose it by pausing.

local TIERS = { 'high', 'normal', 'low', 'training' }
-- The share of the seconds that a tier gets while a higher one always has jobs; claims write what the settings say.
local DEFAULT_LOWER_TIER_SHARE = 0.1
-- The same for the age from which a job may have its model loaded though others wait whose models are warm.
local DEFAULT_OVERDUE_SECONDS = 20
-- For jobs of a model that has never run: seconds to compute one step of one megapixel of one image.
local UNKNOWN_MODEL_PACE = 0.1
-- A model's pace is that of its jobs of up to so many megapixel-steps.
local RECENT_MEGAPIXEL_STEPS = 1000
-- Measured paces that are remembered; beyond this, random ones are forgotten.
local MAX_PACES = 10000

local function load_of(field) return tonumber(redis.call('HGET', KEY.owner_load, field) or 0) end

-- The smallest account of an owner with a running job, or with one that waits in this tier; nil if there is none.
-- Drops smaller accounts of other owners: they would start at the floor in any case.
local function smallest_account(tier)
  while true do
    local first = redis.call('ZRANGE', KEY.accounts .. tier, 0, 0, 'WITHSCORES')
    if not first[1] then return nil end
    if load_of(tier .. ' ' .. first[1]) > 0 or load_of('running ' .. first[1]) > 0 then return tonumber(first[2]) end
    redis.call('ZREM', KEY.accounts .. tier, first[1])
  end
end

function drop_idle_accounts()
  for _, tier in ipairs(TIERS) do smallest_account(tier) end
end

-- Called at a claim, before its jobs are charged: an owner who comes while they run goes before those who own them.
local function raise_floors()
  for _, tier in ipairs(TIERS) do
    local smallest = smallest_account(tier)
    if smallest then redis.call('HSET', KEY.tiers, 'floor ' .. tier, smallest) end
  end
end

local function floor_of(tier) return tonumber(redis.call('HGET', KEY.tiers, 'floor ' .. tier) or 0) end

-- An owner's account in a tier; without one, the floor.
local function account_of(owner, tier)
  return tonumber(redis.call('ZSCORE', KEY.accounts .. tier, owner) or floor_of(tier))
end

-- What a tier is owed for the seconds that higher ones got while it had jobs.
local function owed_to(tier) return tonumber(redis.call('HGET', KEY.tiers, 'owed ' .. tier) or 0) end

local function set_owed(tier, seconds)
  if seconds > 0 then
    redis.call('HSET', KEY.tiers, 'owed ' .. tier, seconds)
  else
    redis.call('HDEL', KEY.tiers, 'owed ' .. tier)
  end
end

-- Enters seconds of a tier's job, which are negative in a correction, in all of its owner's accounts.
local function charge(owner, served, seconds)
  local is_lower = false
  local lower_share = tonumber(redis.call('HGET', KEY.tiers, 'share') or DEFAULT_LOWER_TIER_SHARE)
  for _, tier in ipairs(TIERS) do
    redis.call('ZADD', KEY.accounts .. tier, account_of(owner, tier) + seconds, owner)
    if is_lower then
      local share = seconds * lower_share / (1 - lower_share)
      set_owed(tier, load_of(tier) > 0 and owed_to(tier) + share or 0)
    elseif tier == served then
      set_owed(tier, owed_to(tier) - seconds)
      is_lower = true
    end
  end
end

-- Seconds and megapixel-steps of a model's recent jobs; large images weigh most, as they do in what is predicted by them.
local function model_totals(model)
  local totals = redis.call('HGET', KEY.image_pace, model)
  return unpack(totals and cjson.decode(totals) or { 0, 0 })
end

-- The seconds that a job will take, by the measured pace of jobs like it, or else of its model; nil before the first.
local function predicted_seconds(work)
  local pace = redis.call('HGET', KEY.image_pace, work.pace)
  if pace then return work.image_steps * pace end
  local seconds, megapixel_steps = model_totals(work.model)
  return megapixel_steps > 0 and work.megapixel_steps * seconds / megapixel_steps or nil
end

-- The same, with a guess for a model that has never run. Jobs queued by other releases may have no such `work`: they
-- cost nothing until they end.
local function expected_seconds(work)
  local known = decode(work, {})
  if not (known.pace and known.model and known.image_steps and known.megapixel_steps) then return 0 end
  return predicted_seconds(known) or known.megapixel_steps * UNKNOWN_MODEL_PACE
end

-- Adds a measured job to the moving average of its pace and to its model's totals.
local function learn_pace(work, seconds)
  local pace = seconds / work.image_steps
  local before = tonumber(redis.call('HGET', KEY.image_pace, work.pace) or pace)
  local model_seconds, megapixel_steps = model_totals(work.model)
  model_seconds, megapixel_steps = model_seconds + seconds, megapixel_steps + work.megapixel_steps
  if megapixel_steps > RECENT_MEGAPIXEL_STEPS then
    model_seconds, megapixel_steps = model_seconds / 2, megapixel_steps / 2
  end
  redis.call('HSET', KEY.image_pace, work.pace, 0.8 * before + 0.2 * pace,
             work.model, cjson.encode({ model_seconds, megapixel_steps }))
  if redis.call('HLEN', KEY.image_pace) > MAX_PACES then
    redis.call('HDEL', KEY.image_pace, redis.call('HRANDFIELD', KEY.image_pace))
  end
end

-- Of older jobs, so much counts beside a new one.
local COST_DECAY = 0.9
-- A model that takes longer to be ready than this was loaded.
local LOAD_SECONDS = 0.05

-- Adds one value to a moving average in `job_costs`.
local function average_cost(field, value)
  local before = tonumber(redis.call('HGET', KEY.job_costs, field) or value)
  redis.call('HSET', KEY.job_costs, field, 0.7 * before + 0.3 * value)
end

-- Learns what times are estimated from. Of each kind of job (`calls PACE`): sums over recent jobs of 1 (`n`), of 1 / images
-- in its calls (`x`), of the seconds of an image's step (`y`), of `x * x` and of `x * y`; its `own` seconds, beside
-- loading and denoising; and `rows` of an image. Also the seconds in which a model is loaded (`load MODEL`), and seconds
-- and megapixel-steps of all models (`all`). `measured.images`: in its calls, those of other jobs included.
local function learn_costs(measured, used_seconds)
  local work, key = measured.work, KEY.job_costs
  local all = decode(redis.call('HGET', key, 'all'), { 0, 0 })
  redis.call('HSET', key, 'all', cjson.encode({ all[1] * COST_DECAY + measured.seconds,
                                               all[2] * COST_DECAY + work.megapixel_steps }))
  local load = measured.load_seconds or 0
  if load > LOAD_SECONDS then average_cost('load ' .. work.model, load) else load = 0 end
  if not (used_seconds and measured.images) then return end
  local field, x, y = 'calls ' .. work.pace, 1 / measured.images, measured.seconds / work.image_steps
  local own = math.max(0, used_seconds - measured.seconds - load)
  local sums = decode(redis.call('HGET', key, field), { n = 0, x = 0, y = 0, xx = 0, xy = 0, own = own })
  for name, value in pairs({ n = 1, x = x, y = y, xx = x * x, xy = x * y }) do
    sums[name] = sums[name] * COST_DECAY + value
  end
  sums.own, sums.rows = 0.7 * sums.own + 0.3 * own, measured.image_rows
  redis.call('HSET', key, field, cjson.encode(sums))
  if redis.call('HLEN', key) > MAX_PACES then redis.call('HDEL', key, redis.call('HRANDFIELD', key)) end
end

-- What was measured of these kinds of jobs and of these models, for `contracts/forecast/costs.py`.
local function measured_costs(paces, models)
  local function values_of(hash, prefix, names)
    local found = {}
    for name in pairs(names) do found[name] = redis.call('HGET', hash, prefix .. name) or nil end
    return found
  end
  return { paces = values_of(KEY.image_pace, '', paces), models = values_of(KEY.image_pace, '', models),
           calls = values_of(KEY.job_costs, 'calls ', paces), loads = values_of(KEY.job_costs, 'load ', models),
           all_models = redis.call('HGET', KEY.job_costs, 'all') or nil }
end

-- A waiting job with so many before it in its queue, and what was measured of jobs like it, as JSON for
-- `contracts/forecast/snapshot_reader.py`.
local function place_of(id, ahead)
  local names, job = { 'work', 'created_at', 'deadline_at', 'preparing', 'solo', 'owner', 'priority' }, { id = id }
  for index, value in ipairs(redis.call('HMGET', job_key(id), unpack(names))) do job[names[index]] = value or nil end
  local owner, tier, work = text(job.owner), text(job.priority), decode(job.work, {})
  job.tier, job.priority = tier, nil
  return cjson.encode({
    now = stamp(now()), job = job, ahead = ahead, account = account_of(owner, tier),
    measured = measured_costs({ [text(work.pace)] = true }, { [text(work.model)] = true }),
  })
end

-- Replaces the predicted seconds of an execution by those that it used. Called together with the removal of its lease, so
-- once for each execution, however it ends. Without `used_seconds`, as where a worker was lost, they are those of its
-- last report; before the first, the time since it began, up to what was predicted. `energy`: that the device drew, as in
-- receipts; without it, that of its last report.
function settle_account(id, used_seconds, energy)
  local job = redis.call('HMGET', job_key(id), 'owner', 'priority', 'charged', 'used_seconds', 'started_at', 'used_energy')
  local charged = tonumber(job[3] or nil)
  redis.call('HDEL', job_key(id), 'charged', 'used_seconds', 'used_energy', 'call_share')  -- the last is of releases before 0.4.0
  if not charged then return end
  local passed = now() - (tonumber(job[5] or nil) or now())
  local used = used_seconds or tonumber(job[4] or nil) or math.min(passed, charged)
  charge(text(job[1]), text(job[2]), used - charged)
  local drawn = energy or decode(job[6], {})
  local joules = tonumber(drawn.joules) or 0
  add_usage(id, { device_seconds = math.max(0, used), joules = joules,
                  estimated_joules = drawn.source == 'estimated' and joules or 0 })
end

local function add_load(field, change)
  local number = redis.call('HINCRBY', KEY.owner_load, field, change)
  if number <= 0 then redis.call('HDEL', KEY.owner_load, field) end
  return number
end

-- Counts the jobs of an owner that wait in a tier, or that run (`what` is `running`), and the tier's jobs and owners.
function count_load(what, owner, change)
  local number = add_load(what .. ' ' .. owner, change)
  -- Below 0: a job that an earlier release queued, and did not count.
  if what == 'running' or number < 0 then return end
  add_load(what, change)
  if number == 0 then add_load('owners ' .. what, -1) end
  if change > 0 and number == 1 then
    add_load('owners ' .. what, 1)
    redis.call('ZADD', KEY.accounts .. what, math.max(account_of(owner, what), floor_of(what)), owner)
  end
end
