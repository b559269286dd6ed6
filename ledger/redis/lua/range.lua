-- Gives members of a list with their scores. KEYS: floor, list; ARGV: now, clock, from, to, offset, count
return {'OK', redis.call('ZRANGEBYSCORE', KEYS[2], ARGV[3], ARGV[4], 'WITHSCORES', 'LIMIT', ARGV[5], ARGV[6])}
