-- Adds a process' numbered flush of counters to the totals; a flush that is sent again is added once.
local posted = KEY.flushed .. arguments.process
if tonumber(redis.call('GET', posted) or 0) >= arguments.number then return 0 end
redis.call('SET', posted, arguments.number, 'EX', 86400)
for key, figure in pairs(arguments.amounts) do
  redis.call('HINCRBYFLOAT', KEY.totals, key, string.format('%.9f', figure))
end
return 1
