-- Gives ids with the times of their making, the newest first, of several lists at one moment.
-- KEYS: floor, lists...; ARGV: now, clock, from, count
local got = {}
for i = 2, #KEYS do
  got[#got + 1] = redis.call('ZREVRANGEBYSCORE', KEYS[i], ARGV[3], '-inf', 'WITHSCORES', 'LIMIT', 0, ARGV[4])
end
return {'OK', got}
