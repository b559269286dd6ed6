-- Gives entries of the log with their times. KEYS: floor, log; ARGV: now, clock, from, to, offset, count
local got, skip, left = {}, tonumber(ARGV[5]), tonumber(ARGV[6])
local from = list(KEYS[2], ARGV[3])
local start = from and redis.call('ZRANK', KEYS[2], from) or 0
while left > 0 do
  local names = redis.call('ZRANGE', KEYS[2], start, start + 15, 'WITHSCORES')
  for i = 1, #names, 2 do
    if left == 0 or tonumber(names[i + 1]) > tonumber(ARGV[4]) then return {'OK', got} end
    local key = KEYS[2] .. names[i]
    local n = skip > 0 and redis.call('ZCOUNT', key, ARGV[3], ARGV[4]) or 0
    if skip > 0 and skip >= n then
      skip = skip - n
    else
      local some = redis.call('ZRANGEBYSCORE', key, ARGV[3], ARGV[4], 'WITHSCORES', 'LIMIT', skip, left)
      skip, left = 0, left - #some / 2
      for _, v in ipairs(some) do got[#got + 1] = v end
    end
  end
  if #names < 32 then break end
  start = start + 16
end
return {'OK', got}
