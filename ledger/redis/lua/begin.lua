-- Marks a part as incomplete if it is not in use. KEYS: floor, import, then what is there if it is in use
if redis.call('EXISTS', KEYS[2]) == 0 and redis.call('EXISTS', unpack(KEYS, 3)) > 0 then return {'EXISTS'} end
redis.call('SET', KEYS[2], '1')
return {'OK'}
