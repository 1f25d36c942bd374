-- Adds a process's counters to the totals. Flushes are numbered, so that a repeated one is added only once.
write_even_if_full()
local flushed = KEY.flushed .. arguments.process
if tonumber(redis.call('GET', flushed) or 0) >= arguments.number then return 0 end
redis.call('SET', flushed, arguments.number, 'EX', 86400)
for key, amount in pairs(arguments.amounts) do
  redis.call('HINCRBYFLOAT', KEY.totals, key, string.format('%.9f', amount))
end
return 1
