-- Adds a page of a process' tally to the totals. Said twice (its first answer was lost), it is added once.
local posted = 'darkroom:posted:' .. arguments.ledger
if tonumber(redis.call('GET', posted) or 0) >= arguments.page then return 0 end
redis.call('SET', posted, arguments.page, 'EX', 86400)
for key, figure in pairs(arguments.figures) do
  redis.call('HINCRBYFLOAT', 'darkroom:totals', key, string.format('%.9f', figure))
end
return 1
