-- Counts the entries of the log after a time and until another. KEYS: floor, log; ARGV: now, clock, after, until
local n, from = 0, list(KEYS[2], ARGV[3])
local start = from and redis.call('ZRANK', KEYS[2], from) or 0
while true do
  local names = redis.call('ZRANGE', KEYS[2], start, start + 15, 'WITHSCORES')
  for i = 1, #names, 2 do
    if tonumber(names[i + 1]) > tonumber(ARGV[4]) then return {'OK', n} end
    n = n + redis.call('ZCOUNT', KEYS[2] .. names[i], '(' .. ARGV[3], ARGV[4])
  end
  if #names < 32 then return {'OK', n} end
  start = start + 16
end
