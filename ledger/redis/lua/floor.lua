-- Raises the floor of a part. KEYS: floor; ARGV: now, clock, floor
if tonumber(redis.call('GET', KEYS[1]) or '0') < tonumber(ARGV[3]) then redis.call('SET', KEYS[1], ARGV[3]) end
return {'OK'}
