-- Removes what has expired.
-- KEYS: floor, expiry; ARGV: now, clock, limit, prefix
local refused = wrong()
if refused then return refused end
if incomplete() then return {'INCOMPLETE'} end
local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, member in ipairs(gone) do
  redis.call('ZREM', KEYS[2], member)
  redis.call('DEL', ARGV[4] .. member)
end
return {'OK', #gone}
