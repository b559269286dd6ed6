-- Reads a payment by its authorization.
-- KEYS: floor, authorization; ARGV: now, clock, payments' prefix
local id = redis.call('GET', KEYS[2])
if not id then return {'GONE'} end
local v = redis.call('GET', ARGV[3] .. id)
if not v then return {'GONE'} end
return {'OK', v}
