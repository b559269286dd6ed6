-- Marks a part as incomplete if it is not in use. KEYS: floor, import, born, expiry
if redis.call('EXISTS', KEYS[2]) == 0 and redis.call('EXISTS', KEYS[3], KEYS[4]) > 0 then return {'EXISTS'} end
redis.call('SET', KEYS[2], '1')
return {'OK'}
