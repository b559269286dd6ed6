-- Stores an allowance if it is as expected: token 8 | expires 18 | body
-- KEYS: floor, allowance, expiry; ARGV: now, clock, member, expected, value, expires, expires in ms ('': never by itself), import (1: the ledger may be incomplete)
local refused = wrong()
if refused then return refused end
if ARGV[8] ~= '1' and incomplete() then return {'INCOMPLETE'} end
local v = redis.call('GET', KEYS[2]) or ''
if string.sub(v, 1, 8) == string.sub(ARGV[5], 1, 8) then return {'OK'} end
if v ~= ARGV[4] then return {'CHANGED', v} end
redis.call('SET', KEYS[2], ARGV[5])
if ARGV[7] ~= '' then redis.call('PEXPIREAT', KEYS[2], ARGV[7]) end
redis.call('ZADD', KEYS[3], ARGV[6], ARGV[3])
return {'OK'}
