-- Gives an attempt to record up, unless it was committed.
-- KEYS: floor, wallet, aborted; ARGV: now, clock, attempt, hash
local had = redis.call('HGET', KEYS[2], 't' .. ARGV[4])
if had and string.sub(had, 1, 8) == ARGV[3] then return {'COMMITTED', had} end
-- The attempt's time is refused long before this runs out.
redis.call('SET', KEYS[3], '1', 'PX', 600000)
return {'OK'}
