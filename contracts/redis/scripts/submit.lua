-- Accepts a job: our record, RQ's job, its place in the queue and in its owner's index, the event; all or nothing.
-- A job that is sent again is accepted once.
-- Returns `accepted`, the time and, of a new job, where it waits: of a queue of at most `short_queue` jobs `queue` and
-- all of it (`queue_snapshot`), of a longer one `place` and `place_of`. Or, without doing anything: `swept` when an
-- input is gone, `full` or `full_for_owner` when the maximum number of jobs, or of the owner's jobs, is waiting, `too_many`
-- and the API key's jobs when its quota is reached, `too_much` and the bytes of the owner's files when the job's images
-- could exceed `max_bytes`, `too_large` and the bytes of the owner's records when those of the job would exceed
-- `max_record_bytes`, `taken` when another call holds the idempotency key.
local id, key, queue = arguments.id, job_key(arguments.id), arguments.fields.queue
local owner = arguments.fields.owner

local before = redis.call('HGET', key, 'created_at')
if before then return { 'accepted', before } end

local idempotency = arguments.idempotency
if idempotency then
  local found = redis.call('HMGET', idempotency.key, 'token', 'made')
  if found[2] or (found[1] and found[1] ~= idempotency.token) then return { 'taken' } end
end

local function flatten(fields)
  local flat = {}
  for name, value in pairs(fields) do
    flat[#flat + 1] = name
    flat[#flat + 1] = value
  end
  return flat
end

local function waiting_of(suffix)
  local waiting = 0
  for _, other in ipairs(TIERS) do waiting = waiting + load_of(other .. suffix) end
  return waiting
end

local shares = { { arguments.max_waiting_per_owner, ' ' .. owner, 'full_for_owner' }, { arguments.max_waiting, '', 'full' } }
for _, share in ipairs(shares) do
  if share[1] and waiting_of(share[2]) >= share[1] then return { share[3] } end
end

-- A quota counts jobs that have not ended. Ended ones are removed from the set only once it is full, by looking at
-- their states, so that no script that ends a job needs to know of quotas.
local quota = arguments.quota
local holdings = quota and KEY.api_key_jobs .. quota.key_id
if quota and redis.call('SCARD', holdings) >= quota.max_jobs then
  local alive = {}
  for _, held in ipairs(redis.call('SMEMBERS', holdings)) do
    local state = redis.call('HGET', job_key(held), 'state')
    if state == 'queued' or state == 'running' then
      alive[#alive + 1] = held
    else
      redis.call('SREM', holdings, held)
    end
  end
  if #alive >= quota.max_jobs then return { 'too_many', unpack(alive) } end
end

local exceeds, total = exceeds_limit(owner, arguments.result_bytes, arguments.max_bytes)
if exceeds then return { 'too_much', total } end

local records = tonumber(redis.call('HGET', KEY.record_bytes, owner) or 0)
if arguments.max_record_bytes > 0 and records + #ARGV[1] > arguments.max_record_bytes then
  return { 'too_large', string.format('%.0f', records) }
end

local inputs = {}
for _, input in ipairs(arguments.inputs) do
  local sha256 = sha256_of(input)
  if sha256 then
    if redis.call('GET', KEY.input .. sha256) ~= input then return { 'swept' } end
    inputs[#inputs + 1] = input
  end
end
for _, input in ipairs(inputs) do redis.call('HINCRBY', KEY.input_holders, input, 1) end
if #inputs > 0 then redis.call('HSET', key, 'inputs', cjson.encode(inputs)) end

local accepted = now()
redis.call('HSET', key, 'created_at', stamp(accepted), 'sequence', redis.call('INCR', KEY.job_sequence),
           unpack(flatten(arguments.fields)))
redis.call('HSET', rq_key(id), unpack(flatten(arguments.rq)))
redis.call('SADD', KEY.rq_queues, KEY.rq_queue .. queue)
local ahead = redis.call('RPUSH', KEY.rq_queue .. queue, id) - 1
redis.call('SADD', KEY.waiting .. arguments.fields.priority, queue)
redis.call('ZADD', KEY.owner_jobs .. arguments.fields.owner, stamp(accepted), id)
redis.call('ZADD', KEY.all_jobs, stamp(accepted), id)
set_stored(owner, 'job:' .. id, arguments.result_bytes)
if quota then redis.call('SADD', holdings, id) end
if arguments.deadline_seconds then
  local deadline = stamp(accepted + arguments.deadline_seconds)
  redis.call('HSET', key, 'deadline_at', deadline)
  redis.call('ZADD', KEY.deadlines, deadline, id)
end
if idempotency then
  redis.call('HSET', idempotency.key, 'fingerprint', idempotency.fingerprint, 'token', idempotency.token, 'made', id)
  redis.call('EXPIRE', idempotency.key, idempotency.ttl_seconds)
end
count_job('queued', arguments.fields, 1)
index_needs(id)
count('jobs_accepted', arguments.fields.model, arguments.fields.task)
emit(id, 'queued', { at = accepted })
measure_records(id, owner)
if waiting_of('') + redis.call('ZCARD', KEY.leases) <= arguments.short_queue then
  return { 'accepted', stamp(accepted), 'queue', queue_snapshot() }
end
return { 'accepted', stamp(accepted), 'place', place_of(id, ahead) }
