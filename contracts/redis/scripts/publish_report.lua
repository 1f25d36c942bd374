-- Writes a worker's report, which expires after `ttl_seconds`, and its row among the workers; and, for callers that ask often,
-- the little of it that times are estimated from. Rows of workers that have been silent for an hour are removed.
write_even_if_full()
local time, report, bytes = now(), decode(arguments.report, {}), {}
for model, found in pairs(type(report.models) == 'table' and report.models or {}) do
  bytes[model] = tonumber(found.planned_bytes) or tonumber(found.resident_bytes)
end
local state = { model_bytes = bytes }
for _, name in ipairs({ 'state', 'max_jobs', 'max_rows', 'joins_seeds', 'warm', 'budget_bytes' }) do state[name] = report[name] end
redis.call('SET', KEY.worker_state .. arguments.id, cjson.encode(state), 'EX', arguments.ttl_seconds)
redis.call('SET', KEY.worker .. arguments.id, arguments.report, 'EX', arguments.ttl_seconds)
redis.call('ZADD', KEY.workers, stamp(time), arguments.id)
redis.call('ZREMRANGEBYSCORE', KEY.workers, '-inf', stamp(time - 3600))
return 1
