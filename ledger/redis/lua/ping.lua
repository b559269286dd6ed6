-- Shows that a part can be written. KEYS: floor, ping, import
redis.call('SET', KEYS[2], ARGV[1])
if redis.call('EXISTS', KEYS[3]) == 1 then return {'INCOMPLETE'} end
return {'OK'}
