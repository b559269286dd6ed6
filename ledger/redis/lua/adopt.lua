-- Puts payments of a list that wait nowhere among what is due.
-- KEYS: floor, due, held, list; ARGV: now, clock, payments' prefix, new check, from, limit
local refused = wrong()
if refused then return refused end
if incomplete() then return {'INCOMPLETE'} end
local ids = redis.call('ZRANGE', KEYS[4], ARGV[5], ARGV[5] + ARGV[6] - 1)
for _, id in ipairs(ids) do
  local key = ARGV[3] .. id
  if not redis.call('ZSCORE', KEYS[2], id) and not redis.call('ZSCORE', KEYS[3], id) and redis.call('EXISTS', key) == 1 then
    redis.call('SETRANGE', key, 8, ARGV[4])
    redis.call('ZADD', KEYS[2], ARGV[4], id)
  end
end
return {'OK', #ids}
