-- Adds a member to a set. KEYS: set; ARGV: now, clock, member
redis.call('SADD', KEYS[1], ARGV[3])
return {'OK'}
