-- Gives a slice of a list. KEYS: list, list; ARGV: now, clock, from, to
return {'OK', redis.call('LRANGE', KEYS[2], ARGV[3], ARGV[4])}
