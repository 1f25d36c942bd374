-- Returns, as JSON, jobs of an index (of an owner, or of all), newest first, whose fields equal `wanted` and whose metadata
-- contain `metadata`: their `ids`, up to `limit`; how many were `scanned`, up to `scan`; the `score` and `id` of the
-- last of these, after which the next call begins (`after`); whether the list `has_more`, and whether it `is_full`: one
-- that matches would exceed `limit`. Removes jobs that are gone from the index.
local names, values = { 'queue', 'state', 'metadata' }, {}
for name, value in pairs(arguments.wanted) do
  names[#names + 1] = name
  values[#names] = value
end
local after = arguments.after
local from = after and tonumber(after.score)

local function matches(job)
  for place, value in pairs(values) do
    if job[place] ~= value then return false end
  end
  if not next(arguments.metadata) then return true end
  local pairs_of = decode(text(job[3]), {})
  for name, value in pairs(arguments.metadata) do
    if pairs_of[name] ~= value then return false end
  end
  return true
end

local function scan(page)
  local top = after and after.score or '+inf'
  local entries = redis.call('ZREVRANGEBYSCORE', arguments.index, top, '-inf', 'WITHSCORES', 'LIMIT', 0, arguments.scan)
  page.has_more = #entries == 2 * arguments.scan
  for place = 1, #entries, 2 do
    local id, score = entries[place], entries[place + 1]
    -- Redis orders equal scores by member; up to and including `after` they were scanned before.
    if not after or tonumber(score) < from or id < after.id then
      local job = redis.call('HMGET', job_key(id), unpack(names))
      if not job[1] and not job[2] then
        redis.call('ZREM', arguments.index, id)
      elseif matches(job) and #page.ids == arguments.limit then
        page.is_full, page.has_more = true, true
        return page
      else
        if matches(job) then page.ids[#page.ids + 1] = id end
        page.scanned = page.scanned + 1
      end
      page.score, page.id = score, id
    end
  end
  page.has_more = page.has_more and page.id ~= nil
  return page
end

return cjson.encode(scan({ ids = {}, scanned = 0, is_full = false }))
