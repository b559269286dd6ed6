-- Tells what is due since when: first what was held and is not any more comes back.
-- KEYS: floor, due, held; ARGV: now, clock, limit, payments' prefix
local refused = wrong()
if refused then return refused end
if incomplete() then return {'INCOMPLETE'} end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', ARGV[1], 'LIMIT', 0, 4096)) do
  redis.call('ZREM', KEYS[3], id)
  local check = redis.call('GETRANGE', ARGV[4] .. id, 8, 25)
  if check ~= '' then redis.call('ZADD', KEYS[2], check, id) end
end
return {'OK', redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', 0, ARGV[3])}
