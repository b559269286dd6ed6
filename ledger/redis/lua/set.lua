-- Gives all members of a set. KEYS: set, set
return {'OK', redis.call('SMEMBERS', KEYS[2])}
