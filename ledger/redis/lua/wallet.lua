-- Imports a transaction of a wallet as it is. KEYS: floor, wallet, freed; ARGV: now, clock, hash, transaction, nonce field, carries payments
local field = 't' .. ARGV[3]
local had = redis.call('HGET', KEYS[2], field)
if had then return {'EXISTS', had} end
redis.call('HSET', KEYS[2], field, ARGV[4], ARGV[5], (redis.call('HGET', KEYS[2], ARGV[5]) or '') .. ARGV[3])
if ARGV[6] ~= '1' then redis.call('RPUSH', KEYS[3], ARGV[3]) end
return {'OK'}
