-- Gives revocations by number: id, number and end of each. KEYS: floor, numbers, ends; ARGV: now, clock, after, limit
local got = {}
local list = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[3], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[4])
for i = 1, #list, 2 do
  got[#got + 1] = list[i]
  got[#got + 1] = list[i + 1]
  got[#got + 1] = redis.call('ZSCORE', KEYS[3], list[i]) or ''
end
return {'OK', got}
