-- Gives all members of a list. KEYS: floor, list
return {'OK', redis.call('ZRANGE', KEYS[2], 0, -1)}
