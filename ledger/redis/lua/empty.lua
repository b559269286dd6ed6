-- Tells whether a part is in use, and not by a copy. KEYS: floor, import, then what is there if it is in use
if redis.call('EXISTS', KEYS[2]) == 0 and redis.call('EXISTS', unpack(KEYS, 3)) > 0 then return {'EXISTS'} end
return {'OK'}
