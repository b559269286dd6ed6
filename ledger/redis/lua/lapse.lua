-- Forgets revocations that have ended. KEYS: floor, numbers, ends, state of the copy; ARGV: now, clock, ended before, limit
if redis.call('EXISTS', KEYS[4]) == 1 then return {'INCOMPLETE'} end
local gone = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', ARGV[3], 'LIMIT', 0, ARGV[4])
for _, id in ipairs(gone) do
  redis.call('ZREM', KEYS[2], id)
  redis.call('ZREM', KEYS[3], id)
end
return {'OK', #gone}
