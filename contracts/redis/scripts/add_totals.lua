-- Adds a page of a process' tally to the totals. Said twice (its first answer was lost), it is added once.
local posted = KEY.flushed .. arguments.process
if tonumber(redis.call('GET', posted) or 0) >= arguments.number then return 0 end
redis.call('SET', posted, arguments.number, 'EX', 86400)
for key, figure in pairs(arguments.amounts) do
  redis.call('HINCRBYFLOAT', KEY.totals, key, string.format('%.9f', figure))
end
return 1
