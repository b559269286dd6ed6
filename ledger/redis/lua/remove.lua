-- Removes a key. KEYS: floor, key
redis.call('DEL', KEYS[2])
return {'OK'}
