-- Tells whether a part is in use, and not by a copy. KEYS: floor, import, born, expiry
if redis.call('EXISTS', KEYS[2]) == 0 and redis.call('EXISTS', KEYS[3], KEYS[4]) > 0 then return {'EXISTS'} end
return {'OK'}
