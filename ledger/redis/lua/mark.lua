-- Replaces the mark of a payment: ARGV[5] ('' takes it away) for ARGV[4]; ARGV[3] is its version, '' any.
-- KEYS: floor, payment, marked; ARGV: now, clock, version, mark, new mark, id
if ARGV[5] ~= '' and incomplete() then return {'INCOMPLETE'} end
local v = redis.call('GET', KEYS[2])
if not v then return {'GONE'} end
if ARGV[3] ~= '' and string.sub(v, 1, 8) ~= ARGV[3] then return {'CHANGED', v} end
local m = mark(v)
if m ~= ARGV[4] and m ~= ARGV[5] then return {'CHANGED', v} end
redis.call('SET', KEYS[2], compose(string.sub(v, 1, 8), string.sub(v, 9, 26), ARGV[5], body(v), trail(v)))
if ARGV[5] == '' then redis.call('SREM', KEYS[3], ARGV[6]) else redis.call('SADD', KEYS[3], ARGV[6]) end
return {'OK'}
