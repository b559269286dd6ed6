-- Counts what has expired. KEYS: floor, expiry
return {'OK', redis.call('ZCOUNT', KEYS[2], '-inf', ARGV[1])}
