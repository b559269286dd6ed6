-- Writes a value again as it is, so that it can be awaited on the disk and on replicas.
-- KEYS: floor, key
local v = redis.call('GET', KEYS[2])
if v then redis.call('SET', KEYS[2], v, 'KEEPTTL') end
return {'OK'}
