-- Records a transaction with its wallet: the moment at which it counts.
-- KEYS: floor, wallet, aborted, freed
-- ARGV: now, clock, attempt, hash, transaction, nonce field, expected next nonce ('': none), expected rivals, new next nonce, carries payments
local field = 't' .. ARGV[4]
local had = redis.call('HGET', KEYS[2], field)
if had then return {'HAD', had} end
if redis.call('EXISTS', KEYS[3]) == 1 then return {'ABORTED'} end
local refused = wrong()
if refused then return refused end
if (redis.call('HGET', KEYS[2], 'n') or '') ~= ARGV[7] then return {'CHANGED'} end
local rivals = redis.call('HGET', KEYS[2], ARGV[6]) or ''
if rivals ~= ARGV[8] then return {'CHANGED'} end
redis.call('HSET', KEYS[2], field, ARGV[5], ARGV[6], rivals .. ARGV[4], 'n', ARGV[9])
if ARGV[10] ~= '1' then redis.call('RPUSH', KEYS[4], ARGV[4]) end
return {'OK'}
