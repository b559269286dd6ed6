-- Sets a wallet's next nonce if it is still the expected one.
-- KEYS: floor, wallet; ARGV: now, clock, expected ('': none), new
if (redis.call('HGET', KEYS[2], 'n') or '') ~= ARGV[3] then return {'CHANGED'} end
redis.call('HSET', KEYS[2], 'n', ARGV[4])
return {'OK'}
