-- Says when an open payment is due again.
-- KEYS: floor, due, held, payment; ARGV: now, clock, id, new check
local refused = wrong()
if refused then return refused end
if incomplete() then return {'INCOMPLETE'} end
if redis.call('EXISTS', KEYS[4]) == 0 then return {'GONE'} end
local due = redis.call('ZSCORE', KEYS[2], ARGV[3])
if due then redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3]) end
if due or redis.call('ZSCORE', KEYS[3], ARGV[3]) then redis.call('SETRANGE', KEYS[4], 8, ARGV[4]) end
return {'OK'}
