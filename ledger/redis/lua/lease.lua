-- Leases what is due longest.
-- KEYS: floor, due; ARGV: now, clock, limit, payments' prefix, new check
local refused = wrong()
if refused then return refused end
if incomplete() then return {'INCOMPLETE'} end
local got = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])) do
  local key = ARGV[4] .. id
  if redis.call('EXISTS', key) == 1 then
    got[#got + 1] = redis.call('GET', key)
    redis.call('SETRANGE', key, 8, ARGV[5])
    redis.call('ZADD', KEYS[2], ARGV[5], id)
  else
    redis.call('ZREM', KEYS[2], id)
  end
end
return {'OK', got}
